"""Programs for whoever looks after the project; no part of the library."""
