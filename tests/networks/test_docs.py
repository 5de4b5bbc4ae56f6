"""What docs/networks.md says is what the code and the papers say."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gfp_core.networks import fast_layers, parsing, registry, retinaface

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
METHODS = {
    *("DFDNet", "PSFRGAN", "HiFaceGAN", "Wan et al.", "PULSE", "mGANprior", "Super-FAN"),
    *("DeblurGANv2", "RCAN", "ESRGAN", "pSp", "Panini-Net", "GCFSR", "VQFR", "DMDNet", "GPEN"),
}
SPELT = {"Panini": "Panini-Net", "SuperFAN": "Super-FAN", "GFPGAN": "GFP-GAN"}
SPELT |= dict.fromkeys(("Our", "Ours"), 'Pose-varied ("Our")')


def rows_after(marker: str) -> list[list[str]]:
    """The cells of the table after a comment, without its head."""
    table = TEXT.split(f"<!-- {marker} -->\n", 1)[1].split("\n\n")[0]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **{row.name: row.network for row in registry.ARCHITECTURES},
    **{name: lambda name=name: parsing.build(name) for name in parsing.NAMES},  # type: ignore[misc]
    **{name: lambda name=name: retinaface.build(name) for name in retinaface.NAMES},  # type: ignore[misc]
}
FIGURES = {row[0].strip("`"): row[1:] for row in rows_after("table: networks")}


def test_every_network_has_a_row_and_a_section() -> None:
    assert set(FIGURES) == set(NETWORKS)
    headings = re.findall(r"^## .*", TEXT, re.MULTILINE)
    for name in NETWORKS:
        assert any(f"`{name}`" in heading for heading in headings), name


@pytest.mark.parametrize("name", NETWORKS)
def test_the_counts_are_those_of_the_network(name: str) -> None:
    with torch.device("meta"):
        net = NETWORKS[name]()
    tensors, parameters = FIGURES[name][:2]
    assert int(tensors) == len(net.state_dict())
    assert int(parameters.replace(",", "")) == sum(p.numel() for p in net.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_the_operations_are_those_of_the_network(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast_layers, "BAND_BYTES", 2**40)  # the rows that bands share count once
    monkeypatch.setattr(fast_layers, "_ONEDNN", None)  # the counter knows PyTorch's names only
    detector = name in retinaface.NAMES
    shape = (1, 3, 480, 640) if detector else (1, 3, 512, 512)
    # Attention does not run on meta tensors.
    with FakeTensorMode(), torch.no_grad():
        net = NETWORKS[name]().eval().requires_grad_(False)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            net(torch.zeros(shape))
    assert f"{counter.get_total_flops() / 1e9:.1f}" == FIGURES[name][2]


def test_the_terms_agree_with_the_registry() -> None:
    for row in registry.ARCHITECTURES:
        terms = FIGURES[row.name][4]
        assert terms.startswith((row.licence, "none published")), row.name


def papers_rows(paper: str) -> list[list[str]]:
    """The rows of a paper's tables: a name without its reference, and the cells after it."""
    rows = []
    for line in re.sub(r"<[^>]*>", "", paper).splitlines():
        name, *cells = line.split("\t")
        if len(cells) > 1:
            name = re.sub(r"\s*\[\d+\]|\(ours\)", "", name)
            rows.append([name.strip(), *(cell.strip().replace("$\\infty$", "∞") for cell in cells)])
    return rows


def test_the_numbers_are_the_papers(shared_dir: Path) -> None:
    tables = re.findall(r"<!-- numbers: (\S+) -->\n(.*?)(?:\n\n|\Z)", TEXT, re.DOTALL)
    assert len(tables) == 9
    for file, table in tables:
        papers = papers_rows((shared_dir / "papers" / file).read_text(encoding="utf-8"))
        for line in table.splitlines()[2:]:
            row = [cell.strip() for cell in line.split("|")[1:-1]]
            assert row in papers, row


def test_the_numbers_in_columns_are_the_papers(shared_dir: Path) -> None:
    papers = papers_rows((shared_dir / "papers" / "pose_varied.md").read_text(encoding="utf-8"))
    found: dict[str, list[str]] = {}
    head: list[str] = []
    for name, *cells in papers:
        if name == "Methods" and (head or "Input" in cells):
            head = [re.sub(r"\s*\[\d+\]", "", cell) for cell in cells]
        elif head and re.match(r"IFQA|NIQE|Time", name):
            for method, cell in zip(head, cells, strict=False):
                found.setdefault(method, []).append(cell)
    for method, *cells in rows_after("columns: pose_varied.md"):
        assert found[method] == cells, method


def test_every_method_of_the_papers_is_there() -> None:
    methods = {row[0]: row for row in rows_after("table: methods")}
    assert set(methods) >= METHODS
    stands: dict[str, list[str]] = {}
    for label, table in re.findall(
        r"^\*\*(\w\d)\*\*.*?<!-- \w+: \S+ -->\n(.*?)(?:\n\n|\Z)", TEXT, re.MULTILINE | re.DOTALL
    ):
        for line in table.splitlines()[2:]:
            name = line.split("|")[1].strip().rstrip("*")
            labels = ["P4", "P6"] if label == "P4" else [label]
            stands.setdefault(SPELT.get(name, name), []).extend(labels)
    for name in ("Input", "GT", "Bicubic"):
        stands.pop(name)
    stands["RestoreFormer"].append("R3")  # with which the others are compared there
    assert {name: row[2] for name, row in methods.items()} == {
        name: ", ".join(labels) for name, labels in stands.items()
    }
