"""Whether a model keeps the colours of skin, light and dark: the table of docs/results.md.

    python -m benchmarks.skin DATA --model lite --model gfpgan-1.4

Faces are grouped by the individual typology angle of their cheeks in the clean picture, ITA =
atan((L* - 50) / b*) (Chardon, Cretois and Hourseau, "Skin colour typology and suntanning pathways",
1991), degraded as the lite recipe says, restored, and compared there in CIELAB. The pictures of the
synthetic set have no other labels.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gfp_core.color.spaces import rgb_to_lab
from gfp_core.degradation import degrade_with_seed
from gfp_core.networks.fast import fast_form
from gfp_core.pipeline import find_model
from gfp_core.training.pack import FacePack
from gfp_core.training.recipes import load_recipe
from gfp_core.weights.loading import load_network

GROUPS = ((55, "very light"), (41, "light"), (28, "intermediate"), (10, "tan"), (-30, "brown"))
"""Lowest angle of a group in degrees; below all of them is dark."""
HALF = 12
"""Half the side of the patch of a cheek, in pixels of a face of 512."""


def cheeks(regions: NDArray[np.float32], size: int) -> list[tuple[slice, slice]]:
    """Where the cheeks are: below the eyes, a little above half way to the mouth."""
    half = HALF * size // 512
    mouth = regions[2]
    places = []
    for eye in regions[:2]:
        x = round(float(0.85 * eye[0] + 0.15 * mouth[0]))
        y = round(float(0.55 * eye[1] + 0.45 * mouth[1]))
        places.append((slice(y - half, y + half), slice(x - half, x + half)))
    return places


def colour(picture: NDArray[np.uint8] | Tensor, places: list[tuple[slice, slice]]) -> Tensor:
    """(3,) mean CIELAB of the places of an (H, W, 3) uint8 or (3, H, W) [0, 1] picture."""
    if not isinstance(picture, Tensor):
        picture = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
    lab = rgb_to_lab(picture[None])[0]
    return torch.cat([lab[(slice(3), *place)].flatten(1) for place in places], dim=1).mean(dim=1)


def group_of(lab: Tensor) -> str:
    """The group of a skin's colour."""
    angle = np.degrees(np.arctan2(float(lab[0]) - 50, float(lab[2])))
    return next((name for lowest, name in GROUPS if angle > lowest), "dark")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="made by gfp prepare")
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--names", default="female_,male_", help="how the files' names begin")
    parser.add_argument("--split", choices=("all", "validation"), default="all")
    options = parser.parse_args()
    pack, ranges = FacePack(options.data), load_recipe("lite").degradation
    nets = {name: fast_form(load_network(*find_model(name)).eval()) for name in options.model}
    begins = tuple(options.names.split(","))
    rows: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
    for index, face in enumerate(pack):
        if not face.name.startswith(begins) or options.split not in ("all", face.split):
            continue
        clean = pack.centre(index)
        places = cheeks(pack.regions(index) - [pack.margin, pack.margin, 0], pack.size)
        truth = colour(clean, places)
        bad = degrade_with_seed(clean, (0, index), ranges)
        seen = torch.from_numpy(bad.copy()).permute(2, 0, 1)[None].float() / 255
        group = group_of(truth)
        rows[group]["input"].append(colour(bad, places) - truth)
        for name, net in nets.items():
            with torch.inference_mode():
                restored = (net(seen * 2 - 1)[0] / 2 + 0.5).clamp(0, 1)
            rows[group][name].append(colour(restored, places) - truth)
    print("| skin | faces | picture | L* | a* | b* | distance |")
    print("|---|---|---|---|---|---|---|")
    for group in [*(name for _, name in GROUPS), "dark"]:
        for name, found in rows[group].items():
            apart = torch.stack(found)
            mean = " | ".join(f"{value:+.1f}" for value in apart.mean(dim=0).tolist())
            distance = apart.norm(dim=1).mean().item()
            print(f"| {group} | {len(apart)} | {name} | {mean} | {distance:.1f} |")


if __name__ == "__main__":
    main()
