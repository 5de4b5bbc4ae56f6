"""Exit codes of ``gfp``; a run that a signal ends says 128 and the signal's number."""

OK = 0
"""All is done."""
FAILED = 1
"""Some files failed."""
USAGE = 2
"""The command makes no sense, or its networks are not available: no file was worked on."""
STOPPED = 3
"""The run was stopped, as nothing more could be written: the disk is full."""
INTERRUPTED = 130
"""Stopped by Ctrl-C, which is signal 2."""


class Stop(Exception):  # noqa: N818 -- not an error of one file
    """The run ends here: says why and what to do; nothing where that needs no words."""

    code = FAILED


class CannotStart(Stop):
    """No file can be worked on; says why and what to do."""

    code = USAGE


class DiskFull(Stop):
    """Nothing more can be written."""

    code = STOPPED


class OutputLost(Stop):
    """Standard output does not take what a command prints; without words where it was closed."""
