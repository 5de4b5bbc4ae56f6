"""Side by side with peers; prints ratios. See docs/performance.md."""
