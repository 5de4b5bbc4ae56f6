"""Install what requirements.txt cannot say; ComfyUI's installers run this file."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gfp_core.dependencies import install

if __name__ == "__main__":
    sys.exit(install())
