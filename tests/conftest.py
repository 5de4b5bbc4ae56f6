"""What all tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of parity data and photographs beside the repository, or $GFP_SHARED."""
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    folder = beside if beside.is_dir() else Path(os.environ.get("GFP_SHARED", ""))
    if not (folder / "parity").is_dir():
        pytest.skip("needs the folder ../shared, or GFP_SHARED")
    return folder
