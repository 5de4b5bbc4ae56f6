"""Several processes that train together, through accelerate."""

import builtins
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gfp_core.training import checkpoints
from gfp_core.training.processes import find_processes

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {root!r})
from tests.training.conftest import tiny_objective, tiny_recipe
from gfp_core.training.pack import FacePack
from gfp_core.training.processes import find_processes
from gfp_core.training.trainer import Trainer
processes = find_processes("cpu")
run = Path({run!r})
for steps in (1, 2):  # stopped after one, it goes on
    recipe = tiny_recipe("restoreformer-dictionary", "data.batch=1", steps=steps)
    runs = Trainer(recipe, FacePack({pack!r}), run, processes, objective=tiny_objective(recipe))
    assert runs.train()
    processes.wait()
weights = torch.cat([one.flatten() for one in runs.net.parameters()])
torch.save(weights, run / f"weights_{{processes.rank}}.pt")
"""


def test_without_accelerate_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "accelerate":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"gfp-face-restoration\[train\]"):
        find_processes("cpu")


@pytest.mark.slow
def test_two_processes_keep_the_same_weights_and_go_on_with_one_run(pack_folder, tmp_path):
    pytest.importorskip("accelerate")
    script = tmp_path / "train.py"
    run = tmp_path / "run"
    script.write_text(SCRIPT.format(root=str(ROOT), run=str(run), pack=str(pack_folder)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", str(script)]
    subprocess.run(command, check=True, timeout=240, capture_output=True)
    first, second = (torch.load(run / f"weights_{rank}.pt") for rank in (0, 1))
    assert torch.equal(first, second)
    state = checkpoints.load(checkpoints.latest(run))
    assert (state["step"], state["samples"]) == (2, 4)  # a face a step and process
    saved = [tensor.flatten() for tensor in state["networks"]["net"].values()]
    assert torch.equal(torch.cat(saved), first)
    assert len((run / "log.jsonl").read_text().splitlines()) == 4  # and the validation's
