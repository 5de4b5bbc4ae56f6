"""What the picture libraries leave undone: deep PNG and TIFF files, and metadata."""
