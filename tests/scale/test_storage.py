"""Folders and buckets: what is listed, written whole, and known to be done."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from gfp_core.scale.storage import (
    Parts,
    Storage,
    make_writable,
    read_row,
    safe_name,
    samples_of,
    without_secrets,
)
from tests.scale.conftest import picture_bytes

ROWS = {
    "id": ["a.jpg", "sub/b.gif", "broken.png"],
    "restored": [b"A", b"B", b""],
    "faces": ["[]", "[{}]", "[]"],
    "seconds": [0.1, 0.2, 0.0],
    "error": ["", "", "broken.png is empty"],
}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.of(str(tmp_path))


def files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def test_pictures_are_listed_in_order_without_hidden_files_and_the_output(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/c.png", "a/x.txt", ".hidden/d.png", "out/e.png", "_gfp/f.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    out = Storage.of(str(tmp_path / "out"))
    assert Storage.of(str(tmp_path)).names([".jpg", ".png"], without=out) == ["a/c.png", "b.JPG"]
    with pytest.raises(ValueError, match="cannot be looked into"):
        Storage.of(str(tmp_path / "nowhere")).names([".png"])


def test_a_part_of_files_is_pictures_and_a_table(storage: Storage, tmp_path: Path) -> None:
    parts = Parts(storage, "files", "key")
    assert parts.write(ROWS) == ROWS["error"]
    (table,) = (name for name in files(tmp_path) if name.endswith(".parquet"))
    assert table.startswith("_gfp/options=key/part-")
    assert files(tmp_path) == sorted(["a.jpg", "sub/b.gif.png", table])
    assert parts.done() == {"a.jpg": "", "sub/b.gif": "", "broken.png": "broken.png is empty"}
    assert Parts(storage, "files", "other").done() == {}


def test_the_output_may_be_above_the_input(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    assert Storage.of(str(tmp_path / "in")).names([".png"], without=Storage.of(str(tmp_path))) == [
        "a.png"
    ]


def test_samples_of_pictures_with_dots_in_their_names_do_not_meet(storage: Storage) -> None:
    """A webdataset's sample is named up to the first dot."""
    rows = {**ROWS, "id": ["x/2020.01.05.jpg", "x/2020.01.06.jpg", "broken.png"]}
    parts = Parts(storage, "webdataset", "key")
    parts.write(rows)
    (tar,) = storage.names([".tar"])
    samples = list(samples_of(storage, tar))
    assert [sample["bytes"] for sample in samples] == [b"A", b"B"]
    assert all(b".faces.json" in sample["beside"] for sample in samples)


def test_a_picture_in_a_tar_ends_like_its_format_and_never_leads_out(storage: Storage) -> None:
    """Readers of webdatasets leave out what has no ending."""
    picture = picture_bytes(1)
    rows = {**ROWS, "id": ["7", "../8.png", ""], "restored": [picture, b"B", b"C"]}
    rows["error"] = ["", "", ""]
    assert [error[:12] for error in Parts(storage, "webdataset", "key").write(rows)] == [
        "",
        "'../8.png' i",
        "'' is no nam",
    ]
    (tar,) = storage.names([".tar"])
    (sample,) = samples_of(storage, tar)
    assert sample["id"].endswith("/7.png")
    assert sample["bytes"] == picture


def test_a_name_that_ends_like_no_picture_keeps_its_end(storage: Storage, tmp_path: Path) -> None:
    rows = {**ROWS, "id": ["1.5", "1.6", "broken.png"]}
    Parts(storage, "files", "key", ".png").write(rows)
    assert (tmp_path / "1.5.png").read_bytes() == b"A"
    assert (tmp_path / "1.6.png").read_bytes() == b"B"


def test_a_part_written_again_takes_its_own_place(storage: Storage, tmp_path: Path) -> None:
    for kind in ("parquet", "webdataset", "files"):
        parts = Parts(storage, kind, "key")
        parts.write(ROWS)
        before = files(tmp_path)
        parts.write(ROWS)
        assert files(tmp_path) == before
        assert len(parts.done()) == 3


def test_a_success_counts_more_than_an_error_before(storage: Storage) -> None:
    parts = Parts(storage, "parquet", "key")
    parts.write(ROWS)
    last = {name: column[2:] for name, column in ROWS.items()}
    parts.write({**last, "restored": [b"C"], "error": [""]})
    assert parts.done() == {"a.jpg": "", "sub/b.gif": "", "broken.png": ""}


def test_a_tar_without_its_table_is_swept(storage: Storage, tmp_path: Path) -> None:
    parts = Parts(storage, "webdataset", "key")
    parts.write(ROWS)
    before = files(tmp_path)
    assert len(before) == 2
    (tmp_path / "options=key" / "part-0.tar").touch()
    assert parts.sweep() == 1
    assert files(tmp_path) == before


def test_names_do_not_lead_out_of_the_output(storage: Storage, tmp_path: Path) -> None:
    for name in ("../a.png", "/etc/a.png", "a/../../b.png", ""):
        with pytest.raises(ValueError, match="below the output"):
            safe_name(name)
    (tmp_path / "folder.png").mkdir()
    rows = {**ROWS, "id": ["../a.png", "folder.png", "x" * 300 + ".png"], "error": [""] * 3}
    parts = Parts(storage, "files", "key")
    errors = parts.write({**rows, "restored": [b"A"] * 3})
    assert "below the output" in errors[0]
    assert "folder.png cannot be written" in errors[1]
    assert "rename the picture" in errors[2]
    assert list(parts.done().values()) == errors


def test_what_cannot_be_read_is_said_and_no_error(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    assert read_row(storage, "gone.png") == (b"", "gone.png does not exist; check the name")
    assert "folder.png" in read_row(storage, "folder.png")[1]


def test_other_file_systems_serve_by_fsspec() -> None:
    storage = Storage.of("memory://photos/in")
    storage.write("a/b.png", b"x")
    assert storage.names([".png"]) == ["a/b.png"]
    assert storage.read("a/b.png") == b"x"
    make_writable(storage)
    with pytest.raises(ValueError, match="cannot be opened"):
        Storage.of("nonsense://x/y")


def test_secrets_are_not_said() -> None:
    assert without_secrets("s3://key:secret@bucket/in?token=x") == "s3://bucket/in"
    assert without_secrets("photos/in") == "photos/in"


@pytest.mark.slow
def test_a_bucket_is_a_folder(bucket: str) -> None:
    address, _, query = bucket.partition("?")
    storage = Storage.of(f"{address}/folder?{query}")
    make_writable(storage)
    parts = Parts(storage, "files", "key")
    parts.write(ROWS)
    assert parts.done().keys() == {"a.jpg", "sub/b.gif", "broken.png"}
    assert storage.names([".jpg", ".png"]) == ["a.jpg", "sub/b.gif.png"]
    assert read_row(storage, "a.jpg") == (b"A", "")
    assert "does not exist" in read_row(storage, "gone.jpg")[1]
