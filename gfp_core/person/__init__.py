"""A restorer of one person, learned from a few photographs of good quality."""
