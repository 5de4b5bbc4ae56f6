"""Weight files: which there are, where they lie, how they come here and become networks."""

import shutil
import sys
import sysconfig


class WeightsError(ValueError):
    """A weight file is not available or unusable; the message names it and says what to do."""


def get_command(name: str) -> str:
    """Return the command line that fetches weights, as it is called in this installation.

    A clone, such as ComfyUI's node packs are, has no ``gfp``.
    """
    program = "gfp"
    if shutil.which(program) is None:
        beside = shutil.which(program, path=sysconfig.get_path("scripts"))
        program = beside or f"{sys.executable} -m gfp_core"
    return f"{program} weights get {name}"
