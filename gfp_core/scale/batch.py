"""Restore batches of rows: one callable class for every engine that maps over tables.

Ray Data, Daft, Spark and plain loops call it alike: columns in, columns out, a row a picture.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..io.formats import FALLBACK_SUFFIX, SUFFIXES
from ..io.images import decode_image, encode_image, from_frames, to_frames
from ..io.names import result_name
from ..io.picture import ImageError, Picture
from ..options import RestoreOptions

if TYPE_CHECKING:
    from ..pipeline import FaceRestorer, Restoration
    from ..recipe import Record
    from ..weights.store import Weights

logger = logging.getLogger(__name__)

Columns = dict[str, NDArray[Any]]

BYTES, IMAGE, ID = "bytes", "image", "id"
"""Columns that are read: the file's bytes or the pixels, and the name of the row."""
RESTORED, FACES, SECONDS, ERROR = "restored", "faces", "seconds", "error"
"""Columns that are added."""


class FaceRestorerBatch:
    r"""Restores the faces of a batch of pictures; picklable, without the weights.

    The networks are loaded where the object is first called, once a process. Each picture is
    restored by itself, so that its result does not depend on the rows beside it, and is the file
    that ``gfp restore`` writes with the same options.

    Example:
        >>> restore = FaceRestorerBatch(options=RestoreOptions.of(strength=0.8))
        >>> rows = restore({"id": ["a.jpg"], "bytes": [Path("a.jpg").read_bytes()]})
        >>> rows["restored"][0][:2], rows["error"][0]
        (b'\xff\xd8', '')
    """

    def __init__(
        self,
        model: str | None = None,
        options: RestoreOptions | None = None,
        *,
        suffix: str | None = None,
        record: Record | bool = True,
        threads: int | None = None,
        weights: Callable[[], Weights] | None = None,
    ) -> None:
        """Describe the restoration.

        Args:
            model: name of weights in the catalogue, or a file; over that of the options.
            options: how, see `RestoreOptions`; frames in order (``video``) are not for batches.
            suffix: ending of the results' format, such as ".png"; None for that which the row's
                id ends in, or else that of the picture.
            record: whether the results say what made them; or what they say, where the networks
                are known by other names elsewhere.
            threads: of PyTorch in the worker; None for what it has.
            weights: makes the store of weights in the worker, where that is not the user's own;
                picklable. It is called when the networks are loaded.

        Raises:
            ValueError: the options are of frames in order or need a reference picture, or no
                format has that ending.
        """
        options = RestoreOptions() if options is None else options
        if model is not None:
            options = options.replace(model=model)
        if options.video.video:
            raise ValueError("a batch holds pictures by themselves: leave out the option video")
        if options.color.mode == "reference":
            raise ValueError("a batch has no picture for the color reference: choose another color")
        if suffix is not None and suffix not in SUFFIXES:
            raise ValueError(f"{suffix} is none of {', '.join(SUFFIXES)}; choose one of them")
        self.options = options
        self._suffix, self._record, self._threads = suffix, record, threads
        self._weights = weights
        self._restorer: FaceRestorer | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the networks behind, and the lock, which is this process's own."""
        return {**vars(self), "_restorer": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def __call__(self, batch: Mapping[str, Any]) -> Columns:
        r"""Restore the pictures of a batch.

        Args:
            batch: columns of equal length: ``id``, the names of the rows; and ``bytes``, whole
                files, or ``image``, (H, W, 3 or 4) uint8, uint16 or float pixels. A row whose
                ``error`` is not empty is passed on as it is. Other columns are handed through.

        Returns:
            The columns but ``bytes`` and ``image``, with the rows in their order, and

            - ``restored``: the bytes of the result's file; empty after an error
            - ``faces``: JSON, a list of box, score, landmarks, strength, angle
            - ``seconds``: float64, from the bytes to the bytes
            - ``error``: empty, or what is wrong with the picture and what to do

        Raises:
            ValueError: a column is missing, or the networks cannot be loaded.
            RuntimeError: the GPU does not work any more; no picture is to blame.
        """
        ids = [str(name) for name in _column(batch, ID)]
        pictures = _column(batch, BYTES if BYTES in batch else IMAGE)
        if len(pictures) != len(ids):
            raise ValueError(f"the batch holds {len(ids)} ids and {len(pictures)} pictures")
        errors = [str(e or "") for e in batch[ERROR]] if ERROR in batch else [""] * len(ids)
        self._load()
        rows = [self._row(*row) for row in zip(ids, pictures, errors, strict=True)]
        columns = {
            name: column if isinstance(column, np.ndarray) else objects(column)
            for name, column in batch.items()
            if name not in (BYTES, IMAGE)
        }
        columns[RESTORED] = objects([row[0] for row in rows])
        columns[FACES] = objects([row[1] for row in rows])
        columns[SECONDS] = np.asarray([row[2] for row in rows], np.float64)
        columns[ERROR] = objects([row[3] for row in rows])
        return columns

    def _load(self) -> FaceRestorer:
        with self._lock:
            if self._restorer is None:
                import torch

                from ..devices import KEPT_FOR_PICTURES, keep_freed_memory
                from ..pipeline import FaceRestorer
                from ..weights.store import Weights

                keep_freed_memory(KEPT_FOR_PICTURES)
                if self._threads is not None:
                    torch.set_num_threads(self._threads)
                weights = Weights() if self._weights is None else self._weights()
                self._restorer = FaceRestorer.load_for(self.options, weights=weights)
                if self._record is True:
                    self._record = record_of(self.options, weights)
            return self._restorer

    def _row(self, name: str, picture: Any, error: str) -> tuple[bytes, str, float, str]:
        """The restored bytes, the faces, the seconds and the error of one row."""
        began = time.perf_counter()
        restored, faces = b"", "[]"
        if not error:
            try:
                restored, faces = self._restore(name, picture)
            except Exception as reason:
                if _is_broken_device(reason):
                    raise
                error = _words(name, reason)
                logger.warning("%s", error)
        return restored, faces, time.perf_counter() - began, error

    def _restore(self, name: str, picture: Any) -> tuple[bytes, str]:
        from ..pipeline import Extra

        restorer, upscale = self._load(), self.options.upscale
        if restorer.upscaler is not None and upscale == 1:
            upscale = float(restorer.upscaler.scale)
        if isinstance(picture, np.ndarray) and picture.ndim > 1:
            data, before = b"", _picture_of(picture)
            kind = SUFFIXES[self._suffix or FALLBACK_SUFFIX]
            digest = hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()
        else:
            data = b"" if picture is None else bytes(picture)
            before = decode_image(data, name, upscale=upscale)
            kind, digest = self._kind(name, before.format), hashlib.sha256(data).hexdigest()
        result = restorer.restore(to_frames(before), self.options, extra=Extra(in_place=True))
        after = from_frames(result.frames, before)
        same = kind == before.format and after.pixels.shape == before.pixels.shape
        if data and same and not len(result.faces):
            return data, "[]"  # as it is: not even encoded once more
        record = "" if isinstance(self._record, bool) else self._record.text_of(digest)
        return encode_image(after, kind, name, record=record), faces_json(result)

    def _kind(self, name: str, read: str) -> str:
        ending = result_name(PurePosixPath(name), self._suffix).suffix.lower()
        if self._suffix is not None:
            return SUFFIXES[self._suffix]
        return SUFFIXES.get(ending) or (
            read if read in SUFFIXES.values() else SUFFIXES[FALLBACK_SUFFIX]
        )


def record_of(options: RestoreOptions, weights: Weights) -> Record:
    """The record of the results of these options, as ``gfp restore`` writes it.

    Raises:
        WeightsError: the networks are not available.
    """
    from ..recipe import Record, network_hashes, recipe_of

    networks = network_hashes(options, weights, people=False)
    return Record(options, recipe_of(options, networks, {}), networks)


def faces_json(result: Restoration) -> str:
    """The faces of a picture as JSON; positions in pixels, angles in degrees."""
    rows = []
    for index, face in enumerate(result.faces.faces):
        row: dict[str, Any] = {
            "box": [round(float(value), 3) for value in face.box],
            "score": round(float(face.score), 6),
            "landmarks": [[round(float(v), 3) for v in point] for point in face.landmarks],
        }
        for key, values in (("strength", result.strengths), ("angle", result.angles)):
            row[key] = None if values is None else round(float(values[index]), 4)
        rows.append(row)
    return json.dumps(rows)


def _column(batch: Mapping[str, Any], name: str) -> Sequence[Any]:
    if name not in batch:
        raise ValueError(
            f"the batch has no column {name}, only {', '.join(batch) or 'none at all'}: it needs "
            f"{ID}, and {BYTES} or {IMAGE}"
        )
    column: Sequence[Any] = batch[name]
    return column


def objects(values: Sequence[Any]) -> NDArray[Any]:
    """A column of Python objects; NumPy's own texts and bytes would lose zeros at the end."""
    column = np.empty(len(values), object)
    for index, value in enumerate(values):
        column[index] = value
    return column


def _picture_of(pixels: NDArray[Any]) -> Picture:
    """A picture of pixels as whole numbers or floats.

    Raises:
        ImageError: they are no such pixels.
    """
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or pixels.dtype.kind not in "uf":
        raise ImageError(
            f"pixels are (H, W, 3 or 4) of uint8, uint16 or floats, not {pixels.shape} of "
            f"{pixels.dtype}"
        )
    if pixels.dtype.kind == "f":
        return Picture(pixels.astype(np.float32), 32)
    scale = np.float32(np.iinfo(pixels.dtype).max)
    depth = 8 if pixels.dtype == np.uint8 else 16
    return Picture(np.divide(pixels, scale, dtype=np.float32), depth)


def _words(name: str, error: Exception) -> str:
    """What is wrong with a picture, on one line."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"{name}: there is not enough memory for this picture; make it smaller"
    text = " ".join((str(error) if isinstance(error, ValueError) else repr(error)).split())
    return text if name in text else f"{name}: {text}"


def _is_broken_device(error: Exception) -> bool:
    """Whether a GPU failed for good: all pictures after this one would fail, too."""
    kinds = {base.__name__ for base in type(error).__mro__}
    if "OutOfMemoryError" in kinds:
        return False
    return "AcceleratorError" in kinds or (
        isinstance(error, RuntimeError) and "CUDA error" in str(error)
    )
