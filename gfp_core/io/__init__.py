"""Files: pictures (PNG, JPEG, WebP, TIFF, BMP), their metadata, and atomic writing."""
