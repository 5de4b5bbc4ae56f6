"""Network architectures, one a file, and the registry that knows them by their keys."""
