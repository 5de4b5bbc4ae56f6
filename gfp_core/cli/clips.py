"""What `gfp restore` does with each clip: see whether it is finished, restore it, note it."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING, Any

from ..io.picture import ImageError
from ..options import FileOptions
from ..recipe import Record
from .console import printable_name, say
from .finished import RESULT, Results
from .paths import Job, make_folder

if TYPE_CHECKING:
    from ..clips import ClipSummary
    from ..faces import Progress
    from ..pipeline import FaceRestorer

logger = logging.getLogger(__name__)


class Clips:
    """The clips among the files of one run."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        options: FileOptions,
        results: Results,
        record: Record,
    ) -> None:
        """Take what all clips of the run share, and say what clips have no use for."""
        self._arguments, self._options = arguments, options
        self._results, self._record = results, record
        unused = ["--save-crops"] * arguments.save_crops + ["--compare"] * arguments.compare
        if unused:
            logger.warning("%s: for pictures alone, clips go without.", " and ".join(unused))

    def read(self, job: Job) -> Job | None:
        """Return the clip's job; None if the clip is finished.

        Raises:
            ImageError: a picture is asked to lie behind the clip.
        """
        if self._arguments.background is not None:
            raise ImageError(f"{job.source} is a clip, and --background is for pictures alone")
        if self._options.restoration.networks.background_model is not None:
            raise ImageError(
                f"{job.source} is a clip, and --background-model is for pictures alone"
            )
        if self._arguments.overwrite:
            return job
        todo = self._results.todo(job, frozenset([RESULT]))
        if todo.reason:
            logger.info("Restored again: %s.", todo.reason.replace("picture", "clip"))
        return job if todo.kinds else None

    def work(
        self, job: Job, restorer: FaceRestorer, extras: dict[str, Any], progress: Progress
    ) -> ClipSummary:
        """Restore a clip, and write it."""
        from ..clips import restore_clip
        from ..pipeline import Extra

        make_folder(job.target.parent)
        recipe = self._results.recipe
        return restore_clip(
            restorer,
            job.source,
            job.target,
            self._options.restoration,
            self._options.clip,
            extra=Extra(**extras),
            progress=progress,
            keep_partial=True,
            record=self._record.text(job.source) if self._arguments.record else "",
            made_by=f"{recipe.options} {recipe.networks}",
        )

    def write(self, job: Job, summary: ClipSummary) -> int:
        """Note a clip that is written, and say what became of it; returns the number of faces."""
        self._results.note(job, {RESULT: [job.target]}, ())
        logger.info("%s.", summary)
        if self._arguments.scenes:
            for number, scene in enumerate(summary.scenes, 1):
                name = printable_name(job.source)
                say(f"{name}\t{number}\t{scene.start:.3f}\t{scene.frames}\t{scene.faces}")
        return summary.faces
