"""What docs/scale.md shows is what programs understand."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from PIL import Image
from skimage import data

from gfp_core.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """The block of code behind a mark."""
    match = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)^```", PAGE, re.M | re.S)
    assert match is not None, name
    return match[1]


def test_the_manifest_of_kubernetes_holds_a_command_that_is_understood() -> None:
    job = yaml.safe_load(block("kuberay"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    arguments = build_parser().parse_args(shlex.split(job["spec"]["entrypoint"])[1:])
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    gpus = group["replicas"] * int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert arguments.actors[1] * arguments.gpus_per_actor == gpus
    names = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names


def test_the_script_of_slurm_is_one_and_its_command_is_understood(tmp_path: Path) -> None:
    script = block("slurm")
    file = tmp_path / "gfp.sbatch"
    file.write_text(script)
    subprocess.run(["bash", "-n", str(file)], check=True)
    command = script.partition("srun gfp ")[2].replace("\\\n", " ")
    values = {"$input": "in", "$output": "out", "$SLURM_ARRAY_TASK_ID": "3"}
    for name, value in {**values, "$SLURM_ARRAY_TASK_COUNT": "16"}.items():
        command = command.replace(name, value)
    arguments = build_parser().parse_args(shlex.split(command))
    assert (arguments.shard.number, arguments.shard.count, arguments.jobs) == (3, 16, 2)
    # And with the variables, as a task of the array runs it.
    stub = f'srun() {{ shift; printf "%s\\n" "$@"; }}\n{script}'
    environment = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16"}
    words = subprocess.run(
        ["bash", "-c", stub, "gfp.sbatch", "my scans", "out"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert words[:4] == ["restore", "my scans", "-o", "out"]
    assert "3/16" in words


def test_the_costs_are_what_the_formula_gives() -> None:
    table = PAGE.partition("<!-- costs -->\n")[2].partition("<!-- end -->")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    assert len(rows) == 3
    for row in rows:
        seconds = float(row[0])
        hours = 1e6 * seconds / 3600 / 0.9
        for gpus, text in zip((1, 8, 64), row[1:4], strict=True):
            assert float(text.removesuffix(" h")) == pytest.approx(hours / gpus, abs=0.06, rel=0.01)
        assert float(row[4]) == pytest.approx(hours, abs=0.06)
        assert float(row[5]) == pytest.approx(2 * hours, abs=0.6)


def test_the_container_that_feeds_a_server_calls_a_command_that_is_understood() -> None:
    services = yaml.safe_load((ROOT / "compose.yml").read_text(encoding="utf-8"))["services"]
    feeder = services["queue"]
    arguments = build_parser().parse_args(feeder["command"])
    assert (ROOT / "workflows" / "api" / arguments.workflow.name).is_file()
    assert feeder["depends_on"]["comfyui"]["condition"] == "service_healthy"


@pytest.mark.slow
def test_the_snippet_of_the_batch_restores_a_photo(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.astronaut()[:256, 96:352]).save("photo.jpg")
    script = tmp_path / "batch.py"
    script.write_text(block("batch"), encoding="utf-8")
    runpy.run_path(str(script))
    assert capsys.readouterr().out.startswith('photo.jpg restored [{"box"')
    assert Path("restored.jpg").stat().st_size > 1000
    compile(block("ray"), "docs/scale.md", "exec")
