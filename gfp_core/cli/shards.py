"""The part of the files that one of several machines works on: ``--shard 3/16``.

Every machine sees the same files and leaves out those of the others, without a word between them:
the part of a file depends on its path below the input alone.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePath


@dataclass(frozen=True)
class Shard:
    """One of several parts of the files."""

    number: int
    """From 1."""
    count: int
    """Parts in all."""

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``3/16``, as the type of an argument."""
        match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise argparse.ArgumentTypeError(
                f"{text!r} names no part: write 1/16 for the first of 16, up to 16/16"
            )
        return cls(int(match[1]), int(match[2]))

    def holds(self, name: PurePath) -> bool:
        """Whether a file belongs to this part.

        Args:
            name: its path below the input, the same on every machine.
        """
        return part_of(name, self.count) == self.number


def part_of(name: PurePath, count: int) -> int:
    """Return the number of the part, from 1, that a file belongs to.

    Systems that write letters in another Unicode form, or paths with backslashes, agree.

    Args:
        name: the file's path below the input.
        count: of parts.
    """
    text = unicodedata.normalize("NFC", name.as_posix())
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % count + 1
