"""Every snippet of docs/python.md runs, in its order, with the bundled networks."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from gfp_core.io.images import Picture, read_image, write_image

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"


@pytest.mark.slow
def test_the_snippets_of_the_python_page_run(tmp_path, monkeypatch, capsys):
    data = pytest.importorskip("skimage.data")
    image = np.ascontiguousarray(data.astronaut()[:256, 96:352])
    monkeypatch.chdir(tmp_path)
    write_image("photo.jpg", Picture(image.astype(np.float32) / 255))
    Path("clip").mkdir()
    for number in range(4):
        write_image(f"clip/{number:04}.png", Picture(image.astype(np.float32) / 255))
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 7
    script = tmp_path / "snippets.py"
    script.write_text("".join(snippets), encoding="utf-8")
    namespace = runpy.run_path(str(script))
    assert "1 faces, restored by" in capsys.readouterr().out
    restored = namespace["restore"](image)
    assert restored.shape == image.shape
    assert restored.dtype == np.uint8
    changed = (restored != image).any(axis=2)
    assert 0.05 < changed.mean() < 0.5
    assert np.array_equal(restored[~changed], image[~changed])
    assert read_image("restored.png").pixels.shape == (256, 256, 3)
    assert len(list(tmp_path.glob("restored_*.png"))) == 4
    assert namespace["result"].tracks.count == 1
    assert all(not picture.any() for picture in namespace["images"])
