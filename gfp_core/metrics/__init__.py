"""Measures of pictures of faces: distances to a ground truth, NIQE and FID."""
