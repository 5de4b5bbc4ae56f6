"""A stand-in for the networks in actors, which are processes of their own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from gfp_core.pipeline import FaceRestorer
from gfp_core.scale import FaceRestorerBatch
from tests.conftest import FakeDetector, FakeRestorer

SECONDS = 0.05


class StandIn(FaceRestorerBatch):
    """Turns faces into their negatives; notes the number of its process in $GFP_TEST_PIDS."""

    def __init__(self, parcels: Any = (), **settings: Any) -> None:
        super().__init__(**settings)
        if folder := os.environ.get("GFP_TEST_PIDS"):
            Path(folder, str(os.getpid())).touch()

    def _load(self) -> FaceRestorer:
        if self._restorer is None:
            self._restorer = FaceRestorer(FakeRestorer(), FakeDetector())  # type: ignore[arg-type]
        return self._restorer

    def _restore(self, name: str, picture: Any) -> tuple[bytes, str]:
        time.sleep(SECONDS)
        return super()._restore(name, picture)
