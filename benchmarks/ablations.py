"""What the parts of GFP-GAN are worth: the paper's Table 4 and Figure 7, small.

    gfp prepare PHOTOGRAPHS --out DATA --size 256
    python -m benchmarks.ablations DATA --out RESULT --steps 800

Each row leaves one thing out of the bundled model's network and training, from the same seed on the
same samples, and `gfp evaluate` compares them on the validation people. A run that was stopped goes
on, and one that is finished is not trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from gfp_core.cli import main as gfp
from gfp_core.networks.lite import GFPGANLite

SIZE = 256
CONFIGURATIONS: dict[str, list[str]] = {
    "cs_sft": [],
    "no_sft": ["model.frozen=['core.condition_']"],
    "sft_all": [f"model.args={{ out_size = {SIZE}, sft_half = false }}"],
    "no_pyramid": ["loss.pyramid=0"],
    "no_component": ["loss.component=0", "loss.component_style=0"],
    "no_judges": [
        "loss.adversarial=0",
        "loss.component=0",
        "loss.component_style=0",
        "loss.identity=0",
    ],
}
"""By name, how each differs."""


def without_conditions(path: Path) -> Path:
    """Write a network whose conditions say "scale 1, shift 0" wherever they look, to be frozen."""
    torch.manual_seed(0)
    net = GFPGANLite(out_size=SIZE)
    with torch.no_grad():
        for heads in (net.core.condition_scale, net.core.condition_shift):
            for head in heads:
                head[2].weight.zero_()
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, path)
    return path


def changes(name: str, steps: int, folder: Path) -> list[str]:
    """The recipe's values of a configuration, for ``--set``."""
    judged = [
        f"loss.{term}.start={steps // 2}"
        for term in ("adversarial", "component", "component_style", "identity")
    ]
    own = list(CONFIGURATIONS[name])
    if name == "no_sft":
        own.append(f"model.start={without_conditions(folder / 'no_sft.start.safetensors')}")
    return [
        f"data.size={SIZE}",
        f"model.args={{ out_size = {SIZE} }}",
        f"schedule.steps={steps}",
        f"run.sheet_every={steps}",
        *judged,
        *own,
    ]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help=f"made by gfp prepare --size {SIZE}")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=[*CONFIGURATIONS])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--face-descriptor", help="its weights (default: if fetched)")
    parser.add_argument("--no-table", action="store_true", help="train only")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    place = ["--device", options.device]
    nets = options.face_descriptor
    for name in options.only:
        command = ["train", "lite", "--data", str(options.data), "--run", str(options.out / name)]
        command += [*place, "--threads", str(options.threads)]
        given = changes(name, options.steps, options.out)
        given += [f"nets.identity_file={nets}"] if nets else []
        command += [part for change in given for part in ("--set", change)]
        model = options.out / f"{name}.safetensors"
        if gfp(command) or gfp(["export", str(options.out / name), "-o", str(model)]):
            raise SystemExit(1)
    if not options.no_table:
        command = ["evaluate", str(options.data), "-o", str(options.out / "table"), *place]
        command += ["--size", str(SIZE), *(["--face-descriptor", nets] if nets else [])]
        for name in CONFIGURATIONS:
            command += ["--model", str(options.out / f"{name}.safetensors")]
        raise SystemExit(gfp(command))


if __name__ == "__main__":
    main()
