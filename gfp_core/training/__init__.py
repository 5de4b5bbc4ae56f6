"""Training of restorers: degradations, losses, data."""
