"""The curves of a training run as a picture, for docs/results.md (needs matplotlib).

python -m benchmarks.curves RUN docs/images/results_curves.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np

PLOTS = (
    ("L1", ("l1",)),
    ("features", ("perceptual",)),
    ("identity", ("identity",)),
    ("judge of the picture", ("discriminator", "adversarial")),
    ("colors of eyes", ("eye_tone",)),
    ("validation PSNR", ("validation_psnr",)),
)
_WINDOW = 5  # lines of the log that are averaged


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = [json.loads(line) for line in (options.run / "log.jsonl").read_text().splitlines()]
    figure, axes = plt.subplots(2, 3, figsize=(12, 6), layout="constrained")
    for (title, names), axis in zip(PLOTS, axes.flat, strict=True):
        for name in names:
            points = np.array([(line["step"], line[name]) for line in lines if name in line])
            axis.plot(*points.T, alpha=0.3 if len(points) > _WINDOW else 1)
            if len(points) > _WINDOW:
                mean = np.convolve(points[:, 1], np.full(_WINDOW, 1 / _WINDOW), "valid")
                where = points[_WINDOW // 2 :][: len(mean), 0]
                label = name.replace("_", " ")
                axis.plot(where, mean, color=axis.lines[-1].get_color(), label=label)
        axis.set_title(title)
        axis.set_xlabel("step")
        if len(names) > 1:
            axis.legend()
    figure.savefig(options.out, dpi=80)


if __name__ == "__main__":
    main()
