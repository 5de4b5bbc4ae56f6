"""One callable for every engine: columns in, columns out, a broken picture is a row."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gfp_core.cli import main
from gfp_core.io.images import decode_image, read_record
from gfp_core.options import OptionError, RestoreOptions
from gfp_core.scale import FaceRestorerBatch
from tests.scale.conftest import POISON, picture_bytes


def batch_of(files: dict[str, bytes]) -> dict:
    data = np.empty(len(files), object)
    data[:] = list(files.values())
    return {"id": np.array(list(files), object), "bytes": data}


def test_every_row_comes_back_in_its_order_and_broken_ones_say_why(loads) -> None:
    names = ["good.png", *POISON, "also good.jpg"]
    files = {"good.png": picture_bytes(1), **POISON, "also good.jpg": picture_bytes(2, "JPEG")}
    batch = {**batch_of(files), "rating": np.arange(len(names))}
    rows = FaceRestorerBatch()(batch)
    assert list(rows) == ["id", "rating", "restored", "faces", "seconds", "error"]
    assert list(rows["id"]) == names
    assert list(rows["rating"]) == list(range(len(names)))
    for name, error, restored in zip(names, rows["error"], rows["restored"], strict=True):
        assert bool(error) == (name in POISON) == (restored == b"")
        assert not error or name in error
    assert "more than" in rows["error"][names.index("bomb.png")]
    assert (rows["seconds"] >= 0).all()


def test_results_are_the_files_that_the_command_writes(loads, tmp_path: Path) -> None:
    files = {
        "a.png": picture_bytes(1),
        "b.jpg": picture_bytes(2, "JPEG"),
        "c.webp": picture_bytes(3, "WEBP"),
        "no face.jpg": picture_bytes(4, "JPEG", face=False),
        "really a jpeg.png": picture_bytes(5, "JPEG"),
        "d.gif": picture_bytes(6, "GIF"),
    }
    for name, data in files.items():
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    words = [str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--strength", "0.75"]
    assert main(["restore", *words]) == 0
    rows = FaceRestorerBatch(options=RestoreOptions.of(strength=0.75))(batch_of(files))
    results = dict(zip(rows["id"], rows["restored"], strict=True))
    results["d.gif.png"] = results.pop("d.gif")
    for name, data in results.items():
        assert data == (tmp_path / "out" / name).read_bytes(), name
    assert results["no face.jpg"] == files["no face.jpg"]
    assert "strength = 0.75" in (read_record(tmp_path / "out" / "a.png") or "")


def test_the_rows_beside_a_picture_do_not_change_its_result(loads) -> None:
    files = {f"{seed}.png": picture_bytes(seed) for seed in range(4)}
    together = FaceRestorerBatch()(batch_of(files))["restored"]
    restore = FaceRestorerBatch()
    alone = [restore(batch_of({name: data}))["restored"][0] for name, data in files.items()]
    assert list(together) == alone


def test_it_is_pickled_without_networks_and_loads_them_once_where_it_is_called(loads) -> None:
    restore = FaceRestorerBatch("gpen-512", RestoreOptions.of(grain=0.5))
    first = restore(batch_of({"a.png": picture_bytes(1)}))
    assert len(loads) == 1
    packed = pickle.dumps(restore)
    assert len(packed) < 10_000
    copy = pickle.loads(packed)
    assert copy.options == RestoreOptions.of(model="gpen-512", grain=0.5)
    for _ in range(2):
        assert copy(batch_of({"a.png": picture_bytes(1)}))["restored"][0] == first["restored"][0]
    assert [call[0] for call in loads] == ["gpen-512"] * 2


def test_faces_are_told_as_json(loads) -> None:
    options = RestoreOptions.of(auto_strength=False, strength=0.5)
    files = {"a.png": picture_bytes(1), "b.png": picture_bytes(2, face=False)}
    rows = FaceRestorerBatch(options=options)(batch_of(files))
    (face,) = json.loads(rows["faces"][0])
    assert face["box"] == [16, 16, 48, 48]
    assert (face["score"], face["strength"], face["angle"]) == (0.75, 0.5, None)
    assert np.array(face["landmarks"]).shape == (5, 2)
    assert rows["faces"][1] == "[]"


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_pixels_are_taken_in_place_of_files(loads, dtype) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(picture_bytes(1))))
    image = pixels if dtype == np.uint8 else pixels.astype(np.float32) / 255
    rows = FaceRestorerBatch()({"id": np.array(["a"]), "image": image[None]})
    of_file = FaceRestorerBatch()(batch_of({"a.png": picture_bytes(1)}))
    of_pixels, expected = (
        decode_image(each["restored"][0], "a").pixels for each in (rows, of_file)
    )
    assert rows["error"][0] == ""
    assert np.abs(of_pixels - expected).max() <= (0 if dtype == np.uint8 else 0.5 / 255 + 1e-4)


def test_wrong_pixels_are_a_row_with_an_error(loads) -> None:
    rows = FaceRestorerBatch()({"id": np.array(["a"]), "image": np.zeros((1, 8, 8, 2), np.uint8)})
    assert "(8, 8, 2)" in rows["error"][0]


def test_a_row_that_could_not_be_read_is_handed_on(loads) -> None:
    files = {"a.png": picture_bytes(1), "b.png": picture_bytes(2)}
    batch = {**batch_of(files), "error": np.array(["the bucket is gone", ""], object)}
    rows = FaceRestorerBatch()(batch)
    assert list(rows["error"]) == ["the bucket is gone", ""]
    assert rows["restored"][0] == b""
    assert rows["restored"][1] != b""


def test_an_empty_batch_is_empty(loads) -> None:
    rows = FaceRestorerBatch()(batch_of({}))
    assert [len(column) for column in rows.values()] == [0] * 5


def test_what_no_picture_is_to_blame_for_ends_the_batch(loads, fake_restorer, monkeypatch) -> None:
    def fail(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(fake_restorer.restorer, "restore", fail)
    with pytest.raises(RuntimeError, match="illegal memory"):
        FaceRestorerBatch()(batch_of({"a.png": picture_bytes(1)}))


def test_an_unexpected_error_of_one_picture_is_its_row(loads, fake_restorer, monkeypatch) -> None:
    def fail(*_, **__):
        raise KeyError("odd")

    monkeypatch.setattr(fake_restorer.restorer, "restore", fail)
    rows = FaceRestorerBatch()(batch_of({"a.png": picture_bytes(1)}))
    assert rows["error"][0] == "a.png: KeyError('odd')"


def test_columns_that_are_missing_are_named() -> None:
    with pytest.raises(ValueError, match="no column image, only id, photo"):
        FaceRestorerBatch()({"id": ["a"], "photo": [b""]})
    with pytest.raises(ValueError, match="1 ids and 2 pictures"):
        FaceRestorerBatch()({"id": ["a"], "bytes": [b"", b""]})


def test_options_that_need_an_order_are_refused() -> None:
    with pytest.raises(ValueError, match="video"):
        FaceRestorerBatch(options=RestoreOptions.of(video=True))
    with pytest.raises(ValueError, match=r"\.xyz"):
        FaceRestorerBatch(suffix=".xyz")
    with pytest.raises(OptionError):
        FaceRestorerBatch(options=RestoreOptions.of(strength=7))


def test_engine_and_provider_are_options_like_the_others(loads) -> None:
    options = RestoreOptions.of(engine="onnxruntime", provider="cpu")
    batch = pickle.loads(pickle.dumps(FaceRestorerBatch(options=options)))
    batch(batch_of({"a.png": picture_bytes(1)}))
    ((*_, how),) = loads
    assert (how["engine"], how["provider"]) == ("onnxruntime", "cpu")
