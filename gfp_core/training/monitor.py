"""What a run shows of itself: a log of losses, pictures, and TensorBoard where it is installed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..draw import sheet
from ..io.atomic import open_atomic, write_text

logger = logging.getLogger(__name__)

LOG, SHEETS, TENSORBOARD = "log.jsonl", "sheets", "tensorboard"


class Monitor:
    """Writes a run's log and pictures; those of a process that is not the first write nothing."""

    def __init__(self, run: Path, *, active: bool = True) -> None:
        """Begin, or go on."""
        self.run, self.active = run, active
        self._board: Any = None
        if not active:
            return
        run.mkdir(parents=True, exist_ok=True)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(run / TENSORBOARD))
        except ImportError:
            logger.info(
                "TensorBoard is not installed (pip install 'gfp-face-restoration[train]'): "
                "losses are in %s, pictures in %s only.",
                run / LOG,
                run / SHEETS,
            )

    def cut_log(self, step: int) -> None:
        """Forget what was logged after a step, from which the run now goes on."""
        file = self.run / LOG
        if not self.active or not file.is_file():
            return
        lines = file.read_text(encoding="utf-8").splitlines()
        earlier = [line for line in lines if json.loads(line)["step"] <= step]
        write_text(file, "".join(f"{line}\n" for line in earlier))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line of values."""
        if not self.active:
            return
        with (self.run / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def show(self, step: int, columns: Mapping[str, Tensor]) -> None:
        """Write a picture sheet: name to (N, 3, H, W) RGB in [0, 1]."""
        if not self.active:
            return
        count = next(iter(columns.values())).shape[0]
        size = min(320, next(iter(columns.values())).shape[-1])
        picture = sheet(columns, range(count), size=size)
        folder = self.run / SHEETS
        folder.mkdir(exist_ok=True)
        pixels = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        with open_atomic(folder / f"step_{step:08d}.png") as file:
            Image.fromarray(pixels).save(file, "PNG")
        if self._board is not None:
            self._board.add_image("validation", picture, step)

    def close(self) -> None:
        """Write what is left."""
        if self._board is not None:
            self._board.close()
