"""Side by side with the baselines; prints ratios. See docs/performance.md."""
