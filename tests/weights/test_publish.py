import hashlib
import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from gfp_core.networks import retinaface
from gfp_core.weights import WeightsError
from gfp_core.weights.catalogue import read_catalogue
from gfp_core.weights.store import Weights
from scripts.publish_weights import card, catalogue_rows, main, prepare, publish
from tests import needs


@pytest.fixture
def ours(weights: Callable[..., Weights], folder: Path) -> Weights:
    """Weights whose row ``net`` is a detector's checkpoint that lies in the folder."""
    folder.mkdir()
    torch.save(retinaface.build("retinaface_mobile025").state_dict(), folder / "net.pth")
    content = (folder / "net.pth").read_bytes()
    return weights(
        format="pytorch",
        file="net.pth",
        architecture="retinaface_mobile025",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        commercial="no",
        reason="the data forbid it",
        origin="https://example.org",
    )


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of the HTTP client below huggingface_hub
@needs.newer_torch
def test_published_to_the_local_hub_and_downloaded_from_there(
    ours: Weights, hub: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    files = prepare(ours, ["net"])
    [file] = files
    assert file.path == folder / "net.safetensors"
    assert publish(files, "me/weights").startswith(f"{hub.address}/me/weights/commit/")

    lines = [json.loads(line) for line in hub.commits["commit"].splitlines()]
    assert lines[0]["value"]["summary"] == "Add net"
    texts = {
        line["value"]["path"]: b64decode(line["value"]["content"]).decode()
        for line in lines
        if line["key"] == "file"
    }
    assert texts == {"README.md": card(files), "catalogue.toml": catalogue_rows(files)}
    [large] = [line["value"] for line in lines if line["key"] == "lfsFile"]
    assert large["path"] == "net.safetensors"
    assert large["oid"] == file.sha256
    sent = hub.commits[f"/put/{file.sha256}"]
    assert sent == file.path.read_bytes()

    # The rows that came out of it make another machine take the file from there.
    rows = tmp_path / "rows.toml"
    rows.write_text(catalogue_rows(files), encoding="utf-8")
    entry = read_catalogue(ours.settings.catalogue_file, rows).find("net")
    assert (entry.converted_sha256, entry.converted_size) == (file.sha256, file.size)


@needs.newer_torch
def test_the_card_states_the_terms(ours: Weights) -> None:
    text = card(prepare(ours, ["net"]))
    assert text.startswith("---\nlicense: other\n")
    assert "Licence: MIT" in text
    assert "Commercial use: no (the data forbid it)" in text
    assert "https://example.org" in text


@needs.newer_torch
def test_what_is_refused(ours: Weights, hub: Any) -> None:
    files = prepare(ours, ["net"])
    with pytest.raises(WeightsError, match="must be a repository OWNER/NAME"):
        publish(files, "no-owner")
    hub.status = 403
    with pytest.raises(WeightsError, match="the Hub does not take the files"):
        publish(files, "me/weights")
    with pytest.raises(WeightsError, match=r"gfpgan-1\.4 is not on this machine"):
        prepare(ours, ["gfpgan-1.4"])
    with pytest.raises(WeightsError, match=r"hash of GFPGANv1\.pth is not known"):
        prepare(ours, ["gfpgan-1"])


@needs.newer_torch
def test_the_script_shows_first_what_it_would_do(
    ours: Weights,
    hub: Any,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GFP_CATALOGUE", str(tmp_path / "weights.toml"))
    monkeypatch.setenv("GFP_WEIGHTS_DIR", str(folder))
    hub.requests.clear()
    assert main(["net", "--repo", "a/b", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "Licence: MIT" in shown
    assert 'converted_sha256 = "' in shown
    assert hub.requests == []
    assert main(["gfpgan-1.4", "--repo", "a/b", "--dry-run"]) == 1
    assert "error: gfpgan-1.4 is not on this machine" in capsys.readouterr().err
