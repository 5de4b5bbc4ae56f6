"""The job of ``gfp scale`` on the real engine: three machines of Ray, one of them lost."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")

from gfp_core.options import RestoreOptions  # noqa: E402
from gfp_core.scale.batch import objects, record_of  # noqa: E402
from gfp_core.scale.ray_data import (  # noqa: E402
    Report,
    ScaleError,
    ScaleJob,
    _cluster,
    _Write,
    run,
)
from gfp_core.scale.storage import Parts, Storage, samples_of  # noqa: E402
from gfp_core.weights.store import Weights  # noqa: E402
from tests.scale.conftest import POISON, picture_bytes  # noqa: E402
from tests.scale.stand_in import StandIn  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
STORE = 100_000_000  # bytes of each machine's object store


@pytest.fixture(scope="module")
def pids(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pids")


@pytest.fixture(scope="module")
def cluster(pids: Path) -> Iterator[Any]:
    """Three machines, of one CPU each, as far as Ray knows; the first also runs the driver."""
    from ray.cluster_utils import Cluster

    os.environ["GFP_TEST_PIDS"] = str(pids)
    machines = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": STORE}
    )
    machines.others = [machines.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    machines.connect()
    yield machines
    ray.shutdown()
    machines.shutdown()
    del os.environ["GFP_TEST_PIDS"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures in two folders, and files that are none."""
    for number in range(40):
        kind = ("PNG", "JPEG")[number % 2]
        path = tmp_path / "in" / str(number % 3) / f"{number}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture_bytes(number, kind, face=number % 5 > 0))
    for name, data in POISON.items():
        (tmp_path / "in" / name).write_bytes(data)
    return tmp_path


def job_of(folder: Path, **settings: Any) -> ScaleJob:
    defaults = {"source": str(folder / "in"), "target": str(folder / "out"), "part_rows": 8}
    return ScaleJob(**{**defaults, **settings})


def rows_of(tables: Path) -> list[dict[str, Any]]:
    return [row for table in tables.glob("*.parquet") for row in pq.read_table(table).to_pylist()]


def expected(folder: Path, options: RestoreOptions | None = None) -> dict[str, bytes]:
    """The results of the pictures, one by one in this process."""
    options = options or RestoreOptions()
    restore = StandIn(options=options, record=record_of(options, Weights()))
    results = {}
    for path in sorted((folder / "in").rglob("*.*")):
        name = path.relative_to(folder / "in").as_posix()
        results[name] = restore({"id": [name], "bytes": [path.read_bytes()]})["restored"][0]
    return results


def test_every_picture_is_there_once_though_an_actor_and_a_machine_are_lost(
    cluster, folder: Path, pids: Path
) -> None:
    lost: list[str] = []

    def interfere(report: Report) -> None:
        if report.done >= 8 and not lost:
            for entry in pids.iterdir():
                try:
                    os.kill(int(entry.name), signal.SIGKILL)
                    lost.append("actor")
                    break
                except ProcessLookupError:
                    continue
        elif report.done >= 16 and len(lost) == 1:
            cluster.remove_node(cluster.others.pop())
            lost.append("machine")

    report = run(job_of(folder, actors=(2, 3)), progress=interfere, worker=StandIn)
    assert lost == ["actor", "machine"]
    assert (report.total, report.restored, report.without_face) == (44, 32, 8)
    assert (report.failed, report.missing, report.faces) == (4, 0, 32)
    assert {error["id"] for error in report.errors} == set(POISON)
    (notes,) = (folder / "out" / "_gfp").glob("options=*")
    rows = rows_of(notes)
    assert len(rows) == len({row["id"] for row in rows}) == 44
    for name, data in expected(folder).items():
        assert (folder / "out" / name).exists() == (name not in POISON)
        if name not in POISON:
            assert (folder / "out" / name).read_bytes() == data, name
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.*g")}

    again = run(job_of(folder), worker=StandIn)
    assert (again.skipped, again.done) == (44, 0)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    report = json.loads(next((folder / "out" / "_gfp").glob("report-*.json")).read_text())
    assert report["total"] == 44


def write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_tables_with_bytes_become_tables_and_other_options_are_another_result(
    cluster, tmp_path: Path
) -> None:
    files = {f"{number}.png": picture_bytes(number) for number in range(6)} | POISON
    names = list(files)
    write_table(tmp_path / "in" / "a.parquet", {"name": names, "photo": list(files.values())})
    job = job_of(tmp_path, id_column="name", bytes_column="photo")
    report = run(job, worker=StandIn)
    assert (report.restored, report.failed) == (6, 4)
    rows = rows_of(next((tmp_path / "out").glob("options=*")))
    assert sorted(row["id"] for row in rows) == sorted(names)
    for row in rows:
        assert bool(row["error"]) == (row["id"] in POISON)
        assert (row["bytes"][:4] == b"\x89PNG") == (row["id"] not in POISON)
        assert len(json.loads(row["faces"])) == (row["id"] not in POISON)
    assert run(job, worker=StandIn).done == 0
    strong = replace(job, options=RestoreOptions.of(strength=0.5))
    assert run(strong, worker=StandIn).restored == 6
    assert len(list((tmp_path / "out").glob("options=*"))) == 2


def test_a_bucket_is_read_and_written(cluster, bucket: str) -> None:
    storage = Storage.of(bucket)
    for number in range(4):
        storage.write(f"in/photos/{number}.jpg", picture_bytes(number, "JPEG"))
    report = run(job_of_bucket(bucket, "in", "out"), worker=StandIn)
    assert (report.total, report.restored, report.failed) == (4, 4, 0)
    assert storage.read("out/photos/3.jpg")[:2] == b"\xff\xd8"
    assert run(job_of_bucket(bucket, "in", "out"), worker=StandIn).done == 0


def job_of_bucket(bucket: str, source: str, target: str, **settings: Any) -> ScaleJob:
    folder, _, query = bucket.partition("?")
    paths = {"source": f"{folder}/{source}?{query}", "target": f"{folder}/{target}?{query}"}
    return ScaleJob(**paths, **settings)


def test_a_table_of_paths_names_files_beside_it_and_elsewhere(cluster, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture_bytes(1))
    (tmp_path / "b.png").write_bytes(picture_bytes(2))
    paths = ["a.png", str(tmp_path / "b.png"), "gone.png"]
    write_table(tmp_path / "in" / "t.parquet", {"id": ["1", "2", "3"], "path": paths})
    report = run(job_of(tmp_path, path_column="path", kind="files"), worker=StandIn)
    assert (report.restored, report.failed) == (2, 1)
    assert "gone.png does not exist" in report.errors[0]["error"]
    assert {path.name for path in (tmp_path / "out").glob("[12]")} == {"1", "2"}
    (tmp_path / "in" / "gone.png").write_bytes(picture_bytes(3))
    again = job_of(tmp_path, path_column="path", kind="files", retry_errors=True)
    report = run(again, worker=StandIn)
    assert (report.restored, report.failed, report.skipped) == (1, 0, 2)


def test_tars_become_tars_with_what_came_with_the_pictures(cluster, tmp_path: Path) -> None:
    import io
    import tarfile

    (tmp_path / "in").mkdir()
    for tar in range(2):
        with tarfile.open(tmp_path / "in" / f"0000{tar}.tar", "w") as archive:
            for number in range(3):
                files = {"jpg": picture_bytes(10 * tar + number, "JPEG"), "txt": b"a caption"}
                for ending, data in files.items():
                    member = tarfile.TarInfo(f"{number:06}.{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    whole = (tmp_path / "in" / "00000.tar").read_bytes()
    (tmp_path / "in" / "00002.tar").write_bytes(whole[: len(whole) // 2])
    report = run(job_of(tmp_path), worker=StandIn)
    assert report.failed >= 1
    assert any("00002.tar" in error["error"] for error in report.errors)
    out = Storage.of(str(tmp_path / "out"))
    samples = {
        sample["id"].split("/", 2)[2]: sample
        for tar in (tmp_path / "out").rglob("*.tar")
        for sample in samples_of(out, tar.relative_to(tmp_path / "out").as_posix())
    }
    assert {f"0000{tar}/00000{number}.jpg" for tar in range(2) for number in range(3)} <= set(
        samples
    )
    sample = samples["00001/000002.jpg"]
    assert sample["bytes"][:2] == b"\xff\xd8"
    with tarfile.open(fileobj=io.BytesIO(sample["beside"])) as beside:
        assert {name.rpartition("/")[2] for name in beside.getnames()} == {
            "000002.txt",
            "000002.faces.json",
        }
    assert run(job_of(tmp_path), worker=StandIn).done == 0


def test_a_cluster_that_holds_no_actor_is_refused(cluster, folder: Path) -> None:
    with pytest.raises(ScaleError, match="an actor needs 1 CPUs and 1 GPUs"):
        run(job_of(folder, gpus_per_actor=1.0), worker=StandIn)


def test_a_table_without_the_column_is_refused_before_anything_starts(tmp_path: Path) -> None:
    write_table(tmp_path / "in" / "t.parquet", {"id": ["1"], "jpg": [b""]})
    with pytest.raises(ScaleError, match=r"t\.parquet has no column bytes, only id, jpg"):
        run(job_of(tmp_path))
    write_table(tmp_path / "in" / "s.parquet", {"id": ["1"], "jpg": [b""]})
    with pytest.raises(ScaleError, match="the id 1 is there twice"):
        run(job_of(tmp_path, bytes_column="jpg"))
    (tmp_path / "in" / "u.parquet").write_bytes(b"no table")
    with pytest.raises(ScaleError, match=r"u\.parquet cannot be read"):
        run(job_of(tmp_path, bytes_column="jpg"))
    (tmp_path / "in" / "t.txt").touch()
    with pytest.raises(ScaleError, match="no picture"):
        run(job_of(tmp_path / "in", source=str(tmp_path / "in" / "t.txt")))


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["a.jpg", "a.tif"], {"suffix": ".png"}, r"a\.jpg and a\.tif would both .* a\.png"),
        (["a.b.jpg", "a_b.jpg"], {"kind": "webdataset"}, "would both be written to a_b;"),
        (["a.jpg", "a.tif"], {"kind": "webdataset"}, "would both be written to a;"),
        (["a.jpg"], {"options": RestoreOptions.of(video=True)}, "leave out the option video"),
        (["a.jpg"], {"options": RestoreOptions.of(color="reference")}, "reference"),
        (["a.jpg"], {"target": "in"}, "is input and output"),
        (["in/a.jpg", "a.jpg"], {"target": ""}, r"a\.jpg is an input and would be overwritten"),
    ],
)
def test_what_would_lose_results_is_refused_before_anything_starts(
    tmp_path: Path, names: list[str], settings: dict[str, Any], message: str
) -> None:
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(picture_bytes(1))
    if "target" in settings:
        settings = {**settings, "target": str(tmp_path / settings["target"])}
    with pytest.raises(ValueError, match=message):
        run(job_of(tmp_path, **settings), worker=StandIn)


def test_a_disk_that_is_full_is_no_error_of_the_pictures(tmp_path: Path, monkeypatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Storage, "write", full)
    parts = Parts(Storage.of(str(tmp_path)), "files", "key")
    batch = {"id": ["a.png"], "restored": [b"A"], "faces": ["[]"], "seconds": [0.0], "error": [""]}
    rows = _Write(parts)({name: objects(column) for name, column in batch.items()})
    assert "No space left" in rows["fatal"][0]


@pytest.mark.parametrize(("address", "asked"), [(None, "local"), ("auto", "auto")])
def test_without_an_address_no_other_cluster_is_joined(address, asked, tmp_path: Path) -> None:
    class Engine:
        is_initialized = staticmethod(lambda: False)

        @staticmethod
        def init(**settings: Any) -> None:
            raise ConnectionError(settings["address"])

    job = job_of(tmp_path, address=address)
    with pytest.raises(ScaleError, match=f"cannot be used: {asked}"), _cluster(Engine, job):
        pass
