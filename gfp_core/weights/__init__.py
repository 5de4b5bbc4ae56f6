"""Weight files: the bundled models and how a file becomes a network."""
