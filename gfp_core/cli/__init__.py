"""``gfp``: the command line, one light file a command and what the commands share."""

from .main import main

__all__ = ["main"]
