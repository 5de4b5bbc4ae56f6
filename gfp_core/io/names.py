"""Names of results: which name the result of a picture has, and names that grow."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PurePath
from typing import TypeVar

from .formats import CLIP_SUFFIXES, FALLBACK_SUFFIX, READABLE_SUFFIXES, SUFFIXES

PathT = TypeVar("PathT", bound=PurePath)

MAX_NAME = 255
"""Bytes of a file's name; so it is on the usual file systems."""


def pictures_in(folder: Path) -> list[Path]:
    """List the pictures directly in a folder by their names, without hidden ones."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in READABLE_SUFFIXES and not file.name.startswith(".")
    )


def result_name(name: PathT, suffix: str | None = None) -> PathT:
    """Return the name of a picture's result.

    Args:
        name: of the picture.
        suffix: ending of the result, with the dot, in place of that of a picture; None for that of
            the picture, or PNG where its format is read but not written.
    """
    ending = name.suffix.lower()
    if suffix is not None and SUFFIXES.get(ending) != SUFFIXES[suffix]:
        # "1.5" and "1.6" are two names.
        is_known = ending in READABLE_SUFFIXES or ending in CLIP_SUFFIXES
        return name.with_suffix(suffix) if is_known else extended(name, suffix)
    if suffix is None and ending in READABLE_SUFFIXES and ending not in SUFFIXES:
        return extended(name, FALLBACK_SUFFIX)  # "a.gif.png": "a.png" may be there too
    return name


def extended(path: PathT, ending: str) -> PathT:
    """Return a path whose name goes on with ``ending``, and is short enough for a file system.

    Where it would be too long, the name's end gives way to eight digits that tell it from others.
    """
    name = os.fsencode(path.name)
    if len(name) + len(ending) > MAX_NAME:
        digits = hashlib.sha256(name).hexdigest()[:8]
        name = name[: MAX_NAME - len(ending) - 10]
        start = name.decode("utf-8", "ignore")  # no half of a character at the end
        return path.with_name(f"{start}~{digits}{ending}")
    return path.with_name(path.name + ending)
