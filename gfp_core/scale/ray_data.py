"""Restore a folder, a bucket, tables or tars on Ray's cluster: the job of ``gfp scale``.

Three stages, through which pictures stream: small tasks read, a pool of actors restores, small
tasks write parts. Ray holds back what is ahead, so that memory does not grow with the job, starts
an actor again that died, and does again what a lost machine held. Its own readers and writers of
pictures would end the job at a broken file, and decode what is to be handed on byte by byte; its
checkpoint knows nothing of options: so reading, writing and resuming are in `storage`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ..io.formats import READABLE_SUFFIXES
from ..options import RestoreOptions
from ..weights.settings import Settings
from ..weights.store import Weights
from .batch import Columns, FaceRestorerBatch, objects, record_of
from .shipping import Parcel, pack, unpack
from .storage import (
    FILES,
    NOTES,
    PARQUET,
    WEBDATASET,
    Parts,
    Storage,
    make_writable,
    read_row,
    samples_of,
    without_secrets,
)

if TYPE_CHECKING:
    from ray.data import Dataset

    from ..recipe import Record

logger = logging.getLogger(__name__)

_BLOCKS = 20_000
"""Greatest number of blocks of names: the driver keeps account of each."""
_RETRIES = 5
"""How often a batch is given to another actor after one died of it."""
_GIVEN_UP = 16
"""Batches that may be given up before the job stops."""
_ERRORS = 20
"""Errors that a report quotes."""


class ScaleError(ValueError):
    """The job cannot start; says why and what to do."""


@dataclass(frozen=True)
class ScaleJob:
    """What is read, how it is restored and on what, and where the results go."""

    source: str
    """Folder, file or address of pictures, of Parquet tables or of webdataset tars."""
    target: str
    """Folder or address of the results."""
    options: RestoreOptions = field(default_factory=RestoreOptions)
    suffix: str | None = None
    """Ending of the results' format; None for that of each picture."""
    record: bool = True
    """Whether results say what made them."""
    kind: str | None = None
    """What results become, one of `storage.KINDS`; None for what pictures come from."""
    id_column: str = "id"
    bytes_column: str = "bytes"
    path_column: str | None = None
    """Of a table without bytes: paths below its folder, or addresses."""
    actors: tuple[int, int] | None = None
    """Least and greatest number; None for one, up to what the cluster holds."""
    gpus_per_actor: float = 0.0
    cpus_per_actor: float = 1.0
    batch_size: int = 4
    part_rows: int = 64
    """Rows of a part: what is written at once, and done again after a kill."""
    address: str | None = None
    """Of a cluster; None for one on this machine."""
    retry_errors: bool = False
    downloads: bool = True
    """Whether weights may be downloaded here."""


@dataclass
class Report:
    """What became of the pictures."""

    total: int | None = None
    """Pictures in the input; None where only reading tells."""
    skipped: int = 0
    """Done by earlier runs."""
    restored: int = 0
    without_face: int = 0
    faces: int = 0
    failed: int = 0
    missing: int = 0
    """Rows of batches that were given up, as the actors died of them."""
    errors: list[dict[str, str]] = field(default_factory=list)
    """The first errors: id and error."""
    seconds: list[float] = field(default_factory=list, repr=False)
    wall_seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    """What the job ran on."""

    @property
    def done(self) -> int:
        """Rows of this run."""
        return self.restored + self.without_face + self.failed

    def add(self, rows: Mapping[str, Any]) -> None:
        """Count rows that were written."""
        for name, faces, seconds, error in zip(
            *(rows[key] for key in ("id", "faces", "seconds", "error")), strict=True
        ):
            if error:
                self.failed += 1
                if len(self.errors) < _ERRORS:
                    self.errors.append({"id": str(name), "error": str(error)})
                continue
            self.seconds.append(float(seconds))
            self.faces += int(faces)
            self.restored += bool(faces)
            self.without_face += not faces

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON: counts, rates, percentiles of the time of a picture."""
        names = ("total", "skipped", "restored", "without_face", "faces", "failed", "missing")
        table: dict[str, Any] = {name: getattr(self, name) for name in names}
        table["wall_seconds"] = round(self.wall_seconds, 3)
        table["pictures_per_second"] = round(self.done / max(self.wall_seconds, 1e-9), 4)
        table["seconds_per_picture"] = {
            f"p{share}": round(float(np.percentile(self.seconds, share)), 4)
            for share in (50, 90, 99, 100)
            if self.seconds
        }
        return {**table, **self.facts, "errors": self.errors}


def run(
    job: ScaleJob,
    *,
    progress: Callable[[Report], None] | None = None,
    worker: type[FaceRestorerBatch] | None = None,
) -> Report:
    """Restore what an input holds and an output lacks.

    Args:
        job: the job.
        progress: called with the report so far whenever rows were written; may raise to cancel.
        worker: class of the actors, in place of `Worker`.

    Returns:
        The report, which is also written into the output: ``_gfp/report-KEY.json``.

    Raises:
        ScaleError: Ray is not installed, the cluster cannot be reached or is too small, or the
            input holds nothing that can be read.
        WeightsError: the networks are not available.
        ValueError: the input or the output cannot be opened.
    """
    ray = _import_ray()
    FaceRestorerBatch(options=job.options, suffix=job.suffix)  # refuses what actors would
    source, target = _open(job)
    weights = Weights(Settings.load(downloads=job.downloads))
    record = record_of(job.options, weights)
    kind, names = _look_at(job, source, target)
    parts = Parts(target, job.kind or kind, _key(job, record), job.suffix)
    if swept := parts.sweep():
        logger.info("%d tars that a run left unfinished were removed.", swept)
    done = {name for name, error in parts.done().items() if not (error and job.retry_errors)}
    report, began = Report(), time.monotonic()
    groups = _row_groups(job, source, names) if kind == PARQUET else []
    ids = names if kind == FILES else [name for _, _, ids in groups for name in ids]
    if kind != WEBDATASET:
        _refuse_collisions(parts, ids, source if kind == FILES else None)
    todo, groups = names, [group for group in groups if not done.issuperset(group[2])]
    report.skipped = len(done)
    if kind != WEBDATASET:  # whose samples only reading tells
        report.total, report.skipped = len(ids), sum(name in done for name in ids)
    if kind == FILES:
        todo = [name for name in names if name not in done]
    if report.skipped == report.total:
        return _finish(report, parts, began)
    with _cluster(ray, job) as facts:
        report.facts = facts
        rows = _read(ray, job, kind, source, todo, groups, done)
        parcels = pack(job.options, weights, ray.put)
        settings = {"options": job.options, "parcels": parcels, "suffix": job.suffix}
        settings["record"] = record if job.record else False
        restored = _restore(ray, job, rows, worker or Worker, settings, facts["actors"])
        results = restored.map_batches(
            _Write(parts),
            batch_size=job.part_rows,
            batch_format="numpy",
            num_cpus=0,
            compute=ray.data.TaskPoolStrategy(size=4),
        )
        try:
            blocks = results.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0)
            for block in blocks:
                if any(block["fatal"]):
                    reason = next(filter(None, block["fatal"]))
                    raise ScaleError(f"the job stopped, as results cannot be written: {reason}")
                report.add(block)
                report.wall_seconds = time.monotonic() - began
                if progress is not None:
                    progress(report)
        except ray.exceptions.RayError as error:
            with suppress(OSError):
                _finish(report, parts, began)
            raise ScaleError(f"the job stopped after {report.done} pictures: {error}") from error
        if report.total is not None:
            report.missing = max(0, report.total - report.skipped - report.done)
    return _finish(report, parts, began)


def _open(job: ScaleJob) -> tuple[Storage, Storage]:
    """Open the input and the output, which can be written then.

    Raises:
        ScaleError: they are the same.
        ValueError: one cannot be opened.
    """
    source, target = Storage.of(job.source), Storage.of(job.target)
    if source.root == target.root and source.filesystem.equals(target.filesystem):
        raise ScaleError(
            f"{without_secrets(job.source)} is input and output; choose another output"
        )
    make_writable(target)
    return source, target


def _look_at(job: ScaleJob, source: Storage, target: Storage) -> tuple[str, list[str]]:
    """What kind of input it is, and the names of its files.

    Raises:
        ScaleError: there is nothing that can be read.
    """
    for kind, endings in ((PARQUET, [".parquet"]), (WEBDATASET, [".tar"])):
        if names := source.names(endings, without=target):
            return kind, names
    names = source.names([*READABLE_SUFFIXES], without=target)
    if not names or names == [""]:
        raise ScaleError(
            f"there is no picture, no .parquet and no .tar below {without_secrets(job.source)}; "
            "name a folder or a bucket of them"
        )
    return FILES, names


def _refuse_collisions(parts: Parts, ids: list[str], source: Storage | None) -> None:
    """Refuse names of which one result would take another's place, or that of an input.

    Args:
        parts: the output.
        ids: names of the rows.
        source: where these are files; None elsewhere.

    Raises:
        ScaleError: there are such names.
    """
    by_target: dict[str, str] = {}
    for name in ids:
        target = parts.place_of(name)
        earlier = by_target.setdefault(target, name)
        if earlier is not name:
            raise ScaleError(
                f"{earlier} and {name} would both be written to {target}; rename one of them, or "
                "write tables (--write parquet)"
            )
    if source is None or parts.kind != FILES or not source.is_below(parts.storage):
        return
    inputs = {source.path(name) for name in ids}
    for target in by_target:
        if (path := parts.storage.path(target)) in inputs:
            raise ScaleError(f"{path} is an input and would be overwritten; choose another output")


def _key(job: ScaleJob, record: Record) -> str:
    """What results depend on beside the picture: another key, other results."""
    recipe = record.recipe
    text = json.dumps([recipe.options, recipe.networks, job.suffix, job.record])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ScaleError(
            f"Ray cannot be loaded ({error}): pip install gfp-face-restoration[scale]"
        ) from error
    return ray


@contextmanager
def _cluster(ray: Any, job: ScaleJob) -> Iterator[dict[str, Any]]:
    """Join a cluster, or start one here, unless this process is in one; gives the facts of it."""
    ours = not ray.is_initialized()
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if ours:
        try:
            # "local": without an address Ray joins a cluster that happens to run on this machine.
            address = job.address or "local"
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, OSError, ValueError, RuntimeError) as error:
            raise ScaleError(f"the cluster {job.address or 'here'} cannot be used: {error}") from (
                error
            )
    try:
        resources = ray.cluster_resources()
        facts: dict[str, Any] = {"ray": ray.__version__}
        facts["machines"] = sum(1 for node in ray.nodes() if node["Alive"])
        facts["cpus"], facts["gpus"] = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        facts["object_store_bytes"] = int(resources.get("object_store_memory", 0))
        facts["actors"] = list(_actors(job, facts))
        context = ray.get_runtime_context()
        dashboard = getattr(ray._private.worker._global_node, "webui_url", None) if ours else None
        facts["dashboard"] = f"http://{dashboard}" if dashboard else None
        facts["job"] = context.get_job_id()
        logger.info(
            "Ray %s: %d machines, %g CPUs, %g GPUs; %d to %d actors. Dashboard: %s",
            *(facts[name] for name in ("ray", "machines", "cpus", "gpus")),
            *facts["actors"],
            facts["dashboard"] or "not here (pip install ray[default])",
        )
        yield facts
    finally:
        if ours:
            ray.shutdown()


def _actors(job: ScaleJob, facts: Mapping[str, Any]) -> tuple[int, int]:
    """The least and the greatest number of actors.

    Raises:
        ScaleError: the cluster does not hold one.
    """
    fitting = [facts["cpus"] / job.cpus_per_actor if job.cpus_per_actor else float("inf")]
    if job.gpus_per_actor:
        fitting.append(facts["gpus"] / job.gpus_per_actor)
    if min(fitting) < 1:
        raise ScaleError(
            f"an actor needs {job.cpus_per_actor:g} CPUs and {job.gpus_per_actor:g} GPUs, and the "
            f"cluster has {facts['cpus']:g} and {facts['gpus']:g}; ask for less, or add machines"
        )
    return job.actors or (1, max(1, int(min(fitting))))


def _row_groups(
    job: ScaleJob, source: Storage, names: list[str]
) -> list[tuple[str, int, list[str]]]:
    """The row groups of tables: file, number, and the ids of the rows.

    Raises:
        ScaleError: a file is no table or lacks a column, or an id is there twice.
    """
    import pyarrow.parquet as pq

    def look(name: str) -> list[tuple[str, int, list[str]]]:
        called = name or without_secrets(job.source)
        try:
            with source.filesystem.open_input_file(source.path(name)) as file:
                table = pq.ParquetFile(file)
                there = table.schema_arrow.names
                for column in (job.id_column, job.path_column or job.bytes_column):
                    if column not in there:
                        raise ScaleError(
                            f"{called} has no column {column}, only {', '.join(there)}; say with "
                            "--id-column and --bytes-column or --path-column which to take"
                        )
                groups = []
                for number in range(table.num_row_groups):
                    ids = table.read_row_group(number, columns=[job.id_column]).column(0)
                    groups.append((name, number, [str(value) for value in ids.to_pylist()]))
                return groups
        except ScaleError:
            raise
        except (OSError, ValueError) as error:
            raise ScaleError(f"{called} cannot be read: {error}") from error

    with ThreadPoolExecutor(16) as pool:  # files far away
        groups = [group for groups in pool.map(look, names) for group in groups]
    identities: set[str] = set()
    for name, _, ids in groups:
        for identity in ids:
            if identity in identities:
                raise ScaleError(
                    f"{name or without_secrets(job.source)}: the id {identity} is there twice; "
                    "name a column of unique ids with --id-column"
                )
            identities.add(identity)
    return groups


def _read(
    ray: Any,
    job: ScaleJob,
    kind: str,
    source: Storage,
    names: list[str],
    row_groups: list[tuple[str, int, list[str]]],
    done: set[str],
) -> Dataset:
    """The rows that are not done: id, bytes, error."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    # Rows of batches that are given up are missing, which is seen where their number is known.
    # Many of them have one cause: the networks cannot be loaded there, or a GPU is broken.
    context.max_errored_blocks = 0 if kind == WEBDATASET else _GIVEN_UP
    # So small that what is on its way between the stages fits the object store.
    store = int(ray.cluster_resources().get("object_store_memory", 0))
    context.target_max_block_size = max(1 << 20, min(128 << 20, store // 64))
    small: dict[str, Any] = {"num_cpus": 0, "compute": ray.data.TaskPoolStrategy(size=4)}
    if kind == PARQUET:
        groups = [{"id": name, "group": group} for name, group, _ in row_groups]
        columns = job.id_column, job.path_column or job.bytes_column
        select = _ReadTables(source, columns, job.batch_size, ray.put(frozenset(done)))
        tables: Dataset = ray.data.from_items(groups, override_num_blocks=len(groups))
        rows: Dataset = tables.map_batches(select, batch_size=1, **small)
        if job.path_column is None:
            return rows
        single = PurePosixPath(source.root).suffix == ".parquet"
        folder = Storage(source.filesystem, source.root.rpartition("/")[0]) if single else source
        return rows.map_batches(_ReadPaths(folder), batch_size=job.batch_size, **small)
    size = 1 if kind == WEBDATASET else job.batch_size
    count = min(_BLOCKS, -(-len(names) // size))
    items = [{"id": name} for name in names]
    table: Dataset = ray.data.from_items(items, override_num_blocks=count)
    if kind == WEBDATASET:
        unpacked = _ReadTars(source, ray.put(frozenset(done)))
        return table.map_batches(unpacked, batch_size=1, **small)
    return table.map_batches(_ReadPaths(source), batch_size=job.batch_size, **small)


def _restore(
    ray: Any,
    job: ScaleJob,
    rows: Dataset,
    worker: type[FaceRestorerBatch],
    settings: Mapping[str, Any],
    actors: tuple[int, int],
) -> Dataset:
    """The rows restored, by a pool of actors."""
    return rows.map_batches(
        worker,
        fn_constructor_kwargs={**settings, "threads": max(1, int(job.cpus_per_actor))},
        batch_size=job.batch_size,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(min_size=actors[0], max_size=actors[1]),
        num_cpus=job.cpus_per_actor,
        num_gpus=job.gpus_per_actor or None,
        max_task_retries=_RETRIES,  # else a batch that ends its actor goes on for ever
    )


def _finish(report: Report, parts: Parts, began: float) -> Report:
    report.wall_seconds = time.monotonic() - began
    text = json.dumps({"key": parts.key, **report.to_dict()}, indent=1, ensure_ascii=False)
    parts.storage.write(f"{NOTES}/report-{parts.key}.json", text.encode())
    return report


class Worker(FaceRestorerBatch):
    """`FaceRestorerBatch` in an actor, with the weights that came to its machine."""

    def __init__(
        self, options: RestoreOptions, parcels: tuple[Parcel, ...], **settings: Any
    ) -> None:
        """Put the weights in place; arguments are those of `FaceRestorerBatch`."""
        import ray

        options, settings_here = unpack(options, parcels, ray.get)
        super().__init__(options=options, weights=lambda: Weights(settings_here), **settings)


@dataclass(frozen=True)
class _ReadTables:
    """Rows of tables that are not done, a few at a time, with the names of our columns."""

    storage: Storage
    columns: tuple[str, str]
    size: int
    done: Any

    def __call__(self, batch: Columns) -> Iterator[Columns]:
        import pyarrow.parquet as pq
        import ray

        done = ray.get(self.done)
        for name, group in zip(batch["id"], batch["group"], strict=True):
            with self.storage.filesystem.open_input_file(self.storage.path(name)) as file:
                for rows in pq.ParquetFile(file).iter_batches(
                    self.size, row_groups=[int(group)], columns=list(self.columns)
                ):
                    ids, values = (rows[column].to_pylist() for column in self.columns)
                    pairs = [(str(id), value) for id, value in zip(ids, values, strict=True)]
                    todo = [pair for pair in pairs if pair[0] not in done]
                    if todo:
                        yield {
                            "id": objects([id for id, _ in todo]),
                            "bytes": objects([value for _, value in todo]),
                        }


@dataclass(frozen=True)
class _ReadPaths:
    """The bytes of files: of those that ``bytes`` names, or else ``id``."""

    storage: Storage

    def __call__(self, batch: Columns) -> Columns:
        rows = [self._row(str(name)) for name in batch.get("bytes", batch["id"])]
        data, errors = objects([row[0] for row in rows]), objects([row[1] for row in rows])
        return {"id": batch["id"], "bytes": data, "error": errors}

    def _row(self, name: str) -> tuple[bytes, str]:
        if "://" not in name and not name.startswith("/"):
            return read_row(self.storage, name)
        with suppress(ValueError):
            return read_row(Storage.of(name), "")
        return b"", f"{without_secrets(name)} cannot be opened"


@dataclass(frozen=True)
class _ReadTars:
    """The samples of tars that are not done, one at a time."""

    storage: Storage
    done: Any

    def __call__(self, batch: Columns) -> Iterator[Columns]:
        import ray

        done = ray.get(self.done)
        for tar in batch["id"]:
            for row in samples_of(self.storage, str(tar)):
                if row["id"] not in done:
                    yield {name: objects([value]) for name, value in row.items()}


@dataclass(frozen=True)
class _Write:
    """Writes parts, and hands on what a report counts."""

    parts: Parts

    def __call__(self, batch: Columns) -> Columns:
        errors, fatal = list(batch["error"]), ""
        if len(errors):
            try:
                errors = self.parts.write(batch)
            except OSError as error:  # a full disk: nothing more can be written
                fatal = str(error)
        counts = [len(json.loads(faces)) for faces in batch["faces"]]
        return {
            "id": batch["id"],
            "seconds": batch["seconds"],
            "error": objects(errors),
            "faces": np.asarray(counts, np.int64),
            "fatal": objects([fatal] * len(errors)),
        }
