"""The bar of a command that is one long task."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from ..faces import Progress
from .running import Console


@contextmanager
def bar_progress(console: Console, unit: str, first: int = 0) -> Iterator[Progress]:
    """A bar for one long task, as the ``progress`` that it takes.

    Args:
        console: whether it is quiet.
        unit: what is counted.
        first: what was done before.
    """
    with tqdm(
        unit=f" {unit}",
        initial=first,
        file=sys.stderr,
        disable=True if console.quiet else None,  # None: shown on a terminal only
        leave=False,
    ) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
