"""Restore the faces of a clip: decoded, restored and encoded frame by frame, in bounded memory.

The restored frames are written in segments of a fixed number of frames, each with the state that
the next one goes on from, into a folder beside the target. A run that was killed goes on behind the
last whole segment, and its result is that of an undisturbed one. At the end the segments are joined
with the clip's sound and all else it holds, without encoding anything again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from queue import Queue
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import __version__
from .devices import trim_memory
from .faces import Preview, Progress, Track, Tracks
from .io import atomic
from .io.names import extended
from .io.video import SUFFIXES, Clip, Encoding, Frame, Segment, VideoError, Window, join
from .options import ClipOptions, RestoreOptions
from .pipeline import Extra, FaceRestorer, Restoration
from .track import is_cut

logger = logging.getLogger(__name__)

T = TypeVar("T")

SEGMENT = 240
"""Frames of a segment: what a killed run loses at most, and how often an encoder begins anew."""
_AHEAD = 2
"""Frames decoded before they are needed, and frames that wait to be encoded: more would hide no
more, and a machine that is busy otherwise would hold them all."""


@dataclass
class Scene:
    """A stretch of frames without a cut."""

    start: float
    """Seconds from the clip's beginning."""
    frames: int = 0
    faces: int = 0


@dataclass
class ClipSummary:
    """What became of a clip."""

    frames: int = 0
    """Frames written."""
    with_faces: int = 0
    """Frames that show a face that was restored."""
    faces: int = 0
    """Faces restored, counted in each frame."""
    scenes: list[Scene] = field(default_factory=list)
    damage: str = ""
    """What was wrong in the clip and mended."""
    resumed_at: int = 0
    """Frames that an earlier run had finished."""
    is_copy: bool = False
    """Whether no face was found, and the clip's streams were copied as they are."""
    seconds: float = 0.0

    def __str__(self) -> str:
        """Say it in one line."""
        parts = [
            f"{self.frames} frames",
            f"{self.faces} faces in {self.with_faces} of them",
            f"{max(0, len(self.scenes) - 1)} cuts",
        ]
        if self.resumed_at:
            parts.append(f"{self.resumed_at} frames finished before")
        if self.damage:
            parts.append(self.damage)
        if self.is_copy:
            parts.append("copied as it is, without encoding")
        parts.append(f"{self.seconds:.1f} s")
        return ", ".join(parts)


def restore_clip(
    restorer: FaceRestorer,
    source: Path,
    target: Path,
    options: RestoreOptions | None = None,
    clip_options: ClipOptions | None = None,
    *,
    extra: Extra | None = None,
    progress: Progress | None = None,
    preview: Preview | None = None,
    keep_partial: bool = False,
    resume: bool = True,
    record: str | None = None,
    made_by: str = "",
) -> ClipSummary:
    """Restore the faces of a clip into another file.

    Frames are in order, whatever ``options.video`` says: faces are followed and steadied.

    Args:
        restorer: restores the frames.
        source: the clip.
        target: the file to write; its ending says the container (`io.video.SUFFIXES`).
        options: how the frames are restored.
        clip_options: how they are encoded, and which part of the clip is taken.
        extra: tensors for all frames, as for `FaceRestorer.stream`.
        progress: called with (frames done, frames in all), in which the second is an estimate; may
            raise to cancel. The next call with the same arguments goes on where this one stopped.
        preview: called with restored crops as soon as they are finished.
        keep_partial: whether a cancelled run leaves what there is as a clip, beside the target,
            with ``.part`` before its ending.
        resume: whether a cancelled run leaves its segments, for the next call to go on from.
        record: what is written into the target for `io.video.read_record`, see `io.video.join`.
        made_by: what else the result depends on, such as the networks' hashes: where it is another
            than in the run before, all is begun anew.

    Raises:
        VideoError: the clip cannot be read, the target cannot hold it, or another run is at it.
        OSError: the disk is full; the next call goes on.
    """
    options = RestoreOptions() if options is None else options
    clip_options = ClipOptions() if clip_options is None else clip_options
    extra = Extra() if extra is None else extra
    _check_paths(source, target)
    began = time.monotonic()
    with Clip(source) as clip:
        window = _window(clip_options, clip.start)
        encoding = Encoding.choose(
            clip, target, clip_options.codec, clip_options.crf, clip_options.encoder_preset
        )
        plan = _plan(source, options, clip_options, encoding)
        plan["extra"], plan["made_by"] = _digest(extra), made_by
        with _Parts.of(target, plan) as parts:
            run = _Run(restorer, options, extra, parts, clip, encoding, window)
            try:
                with _few_messages():
                    run.go(progress, preview)
            except BaseException:
                if not run.segments or not resume:
                    parts.remove()
                elif keep_partial and run.last_time:
                    _write_partial(run, source, target)
                raise
            summary = run.summary
            summary.damage = str(clip.damage)
            container = SUFFIXES[target.suffix.lower()]
            enlarges = restorer.upscaler is not None or extra.background is not None
            is_as_it_was = not (clip_options.flat(changed=True) or options.upscale != 1 or enlarges)
            is_same_kind = SUFFIXES.get(source.suffix.lower()) == container
            summary.is_copy = not summary.faces and is_as_it_was and is_same_kind
            with atomic.atomic_path(target) as path:
                if summary.is_copy:
                    shutil.copyfile(source, path)
                else:
                    join(run.segments, source, path, window, container=container, record=record)
            parts.remove()
    summary.seconds = time.monotonic() - began
    return summary


def part_path(target: Path) -> Path:
    """Return the path of what a cancelled run leaves of a target."""
    return extended(target.with_suffix(""), ".part" + target.suffix)


@contextlib.contextmanager
def _few_messages() -> Iterator[None]:
    """Let this thread's warnings about single frames through once a clip, and nothing less."""
    thread = threading.get_ident()
    messages: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        if record.thread != thread or logger.isEnabledFor(logging.DEBUG):
            return True
        is_first = record.msg not in messages
        messages.add(record.msg)
        return is_first and record.levelno >= logging.WARNING

    package = __name__.rpartition(".")[0]
    names = [name for name in sys.modules if name.startswith(f"{package}.") and name != __name__]
    loggers = [logging.getLogger(name) for name in names]
    for each in loggers:
        each.addFilter(is_new)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(is_new)


def _window(options: ClipOptions, begin: float) -> Window:
    """Return the part of a clip that the options name, in the clip's own time.

    Args:
        options: count from the clip's beginning.
        begin: when that is.
    """
    ends = [end for end in (options.end, options.first and options.start + options.first) if end]
    if ends and min(ends) <= options.start:
        raise VideoError(f"end ({min(ends):g} s) must lie behind start ({options.start:g} s)")
    start = options.start and options.start + begin
    return Window(start, min(ends) + begin if ends else None)


def _check_paths(source: Path, target: Path) -> None:
    if target.suffix.lower() not in SUFFIXES:
        raise VideoError(f"{target} does not end like a clip: {', '.join(SUFFIXES)}")
    if target.exists() and source.exists() and target.samefile(source):
        raise VideoError(f"{target} is the input and would be overwritten; choose another output")
    partial = part_path(target)
    if partial.exists() and source.exists() and partial.samefile(source):
        raise VideoError(
            f"{source} is what a cancelled run left of {target}, and goes when that is finished: "
            "restore the clip that it was made of, rename it, or choose another output"
        )


class _Run:
    """One pass over a clip."""

    def __init__(
        self,
        restorer: FaceRestorer,
        options: RestoreOptions,
        extra: Extra,
        parts: _Parts,
        clip: Clip,
        encoding: Encoding,
        window: Window,
    ) -> None:
        self._restorer, self._options, self._extra = restorer, options, extra
        self.parts, self._clip, self._encoding, self._window = parts, clip, encoding, window
        self.segments, self.summary, self._tracks = parts.finished()
        self._segment: Segment | None = None
        self._last_time = 0.0

    @property
    def last_time(self) -> float:
        """Seconds at which the last frame written ends; 0 before there is one."""
        return self._last_time

    def go(self, progress: Progress | None, preview: Preview | None) -> None:
        """Restore what is not finished yet, and write it in segments."""
        skip = self.summary.resumed_at = self.summary.frames
        if skip:
            logger.info("%s: goes on behind frame %d.", self._clip.path, skip)
        total = self._total()
        is_open = False  # whether a segment is begun, seen from this thread
        with (
            ThreadPoolExecutor(1) as pool,
            _ahead(self._decoded(skip), _AHEAD) as decoded,
            _Writer(pool, _AHEAD) as writer,
        ):
            try:
                for frame, tensor in decoded:
                    restored = self._restore(frame, tensor, preview)
                    writer.put(self._write, frame, tensor, restored)
                    is_open = self.summary.frames % SEGMENT != 0
                    if not is_open:
                        writer.put(self._end_segment, _copy_of(self.summary), self._tracks)
                    if progress is not None:
                        progress(self.summary.frames, max(total, self.summary.frames))
            except BaseException:
                writer.drop()
                writer.put(self._close_segment)
                raise
            if is_open:
                writer.put(self._end_segment, self.summary, self._tracks)
        if not self.summary.frames:
            raise VideoError(f"{self._clip.path} holds no frame between --start and --end")
        if progress is not None:
            progress(self.summary.frames, self.summary.frames)

    def _total(self) -> int:
        count = self._clip.frame_count or 0
        if self._window.end is None and not self._window.start:
            return count
        rate, begin = float(self._clip.rate), self._clip.start
        end = self._window.end
        stop = count if end is None else min(count, round((end - begin) * rate))
        return max(0, stop - round(max(0.0, self._window.start - begin) * rate))

    def _decoded(self, skip: int) -> Iterator[tuple[Frame, Tensor]]:
        """Yield the frames of the window behind the first ``skip``, and their tensors."""
        number, size = 0, None
        for frame in self._clip.frames():
            seconds = float(frame.pts * self._clip.time_base)
            if self._window.end is not None and seconds >= self._window.end - 1e-9:
                return
            if not self._window.holds(seconds):
                continue
            if size not in (None, frame.planes[0].shape):
                raise VideoError(
                    f"{self._clip.path} changes its size at frame {frame.index} "
                    f"({seconds - self._clip.start:.3f} s); "
                    "restore what is before and behind by itself, with --end and --start"
                )
            size = frame.planes[0].shape
            if number >= skip:
                yield frame, frame.to_tensor()
            number += 1

    def _restore(self, frame: Frame, tensor: Tensor, preview: Preview | None) -> Tensor:
        before = self._tracks
        extra = replace(self._extra, tracks=before, in_place=False)
        result = self._restorer.restore(tensor, self._options, extra=extra, preview=preview)
        assert result.tracks is not None
        self._tracks = result.tracks
        self._count(frame, before, result)
        return result.frames  # nothing else waits with them: masks and crops are as large

    def _count(self, frame: Frame, before: Tracks, result: Restoration) -> None:
        summary, faces = self.summary, len(result.faces)
        last, this = before.thumbnail, self._tracks.thumbnail
        if not summary.scenes or (last is not None and this is not None and is_cut(last, this)):
            seconds = float(frame.pts * self._clip.time_base) - self._clip.start
            summary.scenes.append(Scene(round(seconds, 3)))
        summary.scenes[-1].frames += 1
        summary.scenes[-1].faces += faces
        summary.frames += 1
        summary.faces += faces
        summary.with_faces += faces > 0

    def _write(self, frame: Frame, tensor: Tensor, restored: Tensor) -> None:
        if self._segment is None:
            path = self.parts.segment(len(self.segments))
            first = not self.segments
            self._segment = Segment(path, self._clip, self._encoding, is_first=first)
            self.segments.append(path)
        if restored.shape == tensor.shape:
            self._segment.write(frame.with_change(tensor, restored))
        else:
            self._segment.write(frame.resized(restored))
        duration = frame.duration or round(1 / (self._clip.rate * self._clip.time_base))
        self._last_time = float((frame.pts + duration) * self._clip.time_base)

    def _close_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()

    def _end_segment(self, summary: ClipSummary, tracks: Tracks) -> None:
        assert self._segment is not None
        self._segment.close()
        self._segment = None
        trim_memory()  # what the encoder had lies in pieces between what the next one takes
        self.parts.finish(len(self.segments) - 1, summary, tracks)


def _copy_of(summary: ClipSummary) -> ClipSummary:
    """Return a copy that counting on does not change."""
    return replace(summary, scenes=[replace(scene) for scene in summary.scenes])


def _write_partial(run: _Run, source: Path, target: Path) -> None:
    """Leave what there is of a cancelled run as a clip that can be played."""
    partial = part_path(target)
    window = replace(run._window, end=run.last_time)
    if os.path.lexists(partial) and not run.parts.is_partial(partial):
        logger.warning("%s is another file: what is finished is not shown there.", partial)
        return
    try:
        run.parts.note_partial(partial)
        with atomic.atomic_path(partial) as path:
            join(run.segments, source, path, window, container=SUFFIXES[target.suffix.lower()])
        logger.info("%s holds what is finished; the same command goes on.", partial)
    except (VideoError, OSError, ValueError) as error:
        logger.warning("%s: what is finished cannot be shown yet (%s).", partial, error)


def _plan(
    source: Path, options: RestoreOptions, clip_options: ClipOptions, encoding: Encoding
) -> dict[str, Any]:
    """Return what the segments depend on: where it is another, they are begun anew."""
    status = source.stat()
    return {
        "version": __version__,
        "source": [str(source.resolve()), status.st_size, status.st_mtime_ns],
        "options": options.fingerprint(),
        "clip": clip_options.fingerprint(),
        "encoding": asdict(encoding),
        "segment": SEGMENT,
    }


def _digest(extra: Extra) -> str:
    """Return 16 hexadecimal digits of the tensors that belong to all frames."""
    digest = hashlib.sha256()
    for each in fields(extra):
        value = getattr(extra, each.name)
        if isinstance(value, Tensor):
            array = value.detach().cpu().contiguous().numpy()
            digest.update(f"{each.name} {array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class _Parts:
    """The folder beside a target that holds its segments, until they are joined."""

    folder: Path

    @classmethod
    @contextlib.contextmanager
    def of(cls, target: Path, plan: dict[str, Any]) -> Iterator[_Parts]:
        """Give the folder of a target to this run alone; what another plan left there is removed.

        Raises:
            VideoError: another run is making the same target.
        """
        parts = cls(extended(target.with_name(f".{target.name}"), ".gfp-parts"))
        try:
            lock = parts._lock()
        except BlockingIOError as error:
            raise VideoError(
                f"another run is making {target}: wait for it, or choose another output"
            ) from error
        note = parts.folder / "plan.json"
        try:
            text = json.dumps(plan, sort_keys=True)
            if not note.is_file() or note.read_text(encoding="utf-8") != text:
                parts.remove()
                atomic.write_text(note, text)
            yield parts
        finally:
            is_done = not note.is_file()
            if is_done:
                with contextlib.suppress(OSError):  # Windows removes no open file
                    (parts.folder / _LOCK).unlink()  # before another run can have it
            lock.close()
            if is_done:
                with contextlib.suppress(OSError):  # another run may have begun meanwhile
                    if os.name == "nt":
                        (parts.folder / _LOCK).unlink()
                    parts.folder.rmdir()

    def _lock(self) -> BinaryIO:
        """Make the folder, and lock it; errors as `atomic.lock`."""
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another run has just removed it
                return atomic.lock(self.folder / _LOCK)

    def segment(self, index: int) -> Path:
        """Return the file of a segment."""
        return self.folder / f"{index:06}.segment"

    def finished(self) -> tuple[list[Path], ClipSummary, Tracks]:
        """Return the whole segments, and what was known behind the last of them."""
        segments: list[Path] = []
        while (self.folder / f"{len(segments):06}.state").is_file():
            segments.append(self.segment(len(segments)))
        if not segments:
            return [], ClipSummary(), Tracks()
        summary, tracks = _load_state(self.folder / f"{len(segments) - 1:06}.state")
        return segments, summary, tracks

    def finish(self, index: int, summary: ClipSummary, tracks: Tracks) -> None:
        """Say that a segment is whole."""
        with atomic.atomic_path(self.folder / f"{index:06}.state") as path:
            _save_state(path, summary, tracks)

    def note_partial(self, partial: Path) -> None:
        """Say that a clip was left of what is finished, which goes with the folder."""
        atomic.write_text(self.folder / _PARTIAL, partial.name)

    def is_partial(self, partial: Path) -> bool:
        """Return whether a clip is what an earlier run left of what was finished."""
        with contextlib.suppress(OSError):
            return (self.folder / _PARTIAL).read_text(encoding="utf-8") == partial.name
        return False

    def remove(self) -> None:
        """Remove all but the lock, and the clip that was left of it."""
        with contextlib.suppress(OSError):
            name = (self.folder / _PARTIAL).read_text(encoding="utf-8")
            self.folder.with_name(name).unlink()
        for path in self.folder.iterdir():
            if path.name != _LOCK:
                path.unlink()


_PARTIAL = "partial"
_LOCK = "lock"


_ARRAYS = ("points", "speed", "box")


def _save_state(path: Path, summary: ClipSummary, tracks: Tracks) -> None:
    """Write what the next segment goes on from, without code that a reader could run."""
    tensors: dict[str, Tensor] = {}
    rows = []
    for index, each in enumerate(tracks.tracks):
        rows.append({"number": each.number, "age": each.age, "missing": each.missing})
        for name in _ARRAYS:
            tensors[f"{index}.{name}"] = torch.from_numpy(getattr(each, name).copy())
        if each.embedding is not None:
            tensors[f"{index}.embedding"] = each.embedding.cpu().contiguous()
        for name, value in each.values.items():
            tensors[f"{index}.values.{name}"] = value.detach().cpu().contiguous().clone()
    if tracks.thumbnail is not None:
        tensors["thumbnail"] = tracks.thumbnail.contiguous()
    notes = {
        "tracks": rows,
        "count": tracks.count,
        "frames": tracks.frames,
        "frame_size": tracks.frame_size,
        "summary": asdict(summary),
    }
    save_file(tensors, str(path), {"state": json.dumps(notes)})


def _load_state(path: Path) -> tuple[ClipSummary, Tracks]:
    with safe_open(str(path), framework="pt") as file:
        notes = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tracks = []
    for index, row in enumerate(notes["tracks"]):
        start = f"{index}.values."
        values = {
            name.removeprefix(start): value
            for name, value in tensors.items()
            if name.startswith(start)
        }
        points, speed, box = (
            np.asarray(tensors[f"{index}.{name}"].numpy(), np.float64) for name in _ARRAYS
        )
        tracks.append(
            Track(
                row["number"],
                points,
                speed,
                box,
                age=row["age"],
                missing=row["missing"],
                embedding=tensors.get(f"{index}.embedding"),
                past=values,
                values=values,
            )
        )
    size = notes["frame_size"]
    summary = ClipSummary(**notes["summary"])
    summary.scenes = [Scene(**cast(dict[str, Any], scene)) for scene in summary.scenes]
    return summary, Tracks(
        tuple(tracks),
        thumbnail=tensors.get("thumbnail"),
        frame_size=None if size is None else (size[0], size[1]),
        count=notes["count"],
        frames=notes.get("frames", summary.frames),
    )


class _ahead(Iterator[T]):  # noqa: N801 -- used like a function
    """Run an iterator in a thread of its own, some items before they are needed."""

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._queue: Queue[tuple[str, Any]] = Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(items,), daemon=True)

    def __enter__(self) -> _ahead[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while self._thread.is_alive():
            while not self._queue.empty():
                self._queue.get_nowait()
            self._thread.join(0.01)

    def __next__(self) -> T:
        kind, value = self._queue.get()
        if kind == "item":
            return cast(T, value)
        if kind == "error":
            raise value
        raise StopIteration

    def _run(self, items: Iterator[T]) -> None:
        try:
            for item in items:
                self._queue.put(("item", item))
                if self._stop.is_set():
                    return
        except BaseException as error:
            self._queue.put(("error", error))
        else:
            self._queue.put(("end", None))


class _Writer:
    """Do one thing after the other in another thread, and raise here what failed there."""

    def __init__(self, pool: ThreadPoolExecutor, depth: int) -> None:
        self._pool, self._room = pool, threading.Semaphore(depth)
        self._error: BaseException | None = None
        self._dropped = False

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown(wait=True)
        if kind is None:
            self._raise()

    def put(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do it when all before is done; waits while too much is waiting."""
        self._raise()
        self._room.acquire()
        self._pool.submit(self._do, work, arguments)

    def drop(self) -> None:
        """Forget an error, so that what ends the file can still be put."""
        self._error = None

    def _do(self, work: Callable[..., None], arguments: Sequence[Any]) -> None:
        try:
            if self._error is None:
                work(*arguments)
        except BaseException as error:
            self._error = error
        finally:
            self._room.release()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
