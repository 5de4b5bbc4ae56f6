"""The options of ``gfp prepare``, ``train``, ``export`` and ``evaluate``.

Here and not in ``cli.py``, which is long enough; as light to import.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .running import Console


def add_parsers(commands: Any, talk: argparse.ArgumentParser) -> None:
    """Add the four commands.

    Args:
        commands: what ``add_subparsers`` gave.
        talk: parent with the options of what is said.
    """
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument("--device", help="cpu, cuda, ... (default: CUDA if there is one)")
    finds = argparse.ArgumentParser(add_help=False, parents=[talk, device])
    finds.add_argument(
        "--detector",
        default="retinaface_mobile025",
        help="name of a face detector, or its file (default: %(default)s)",
    )
    _prepare(commands, finds)
    _train(commands, argparse.ArgumentParser(add_help=False, parents=[talk, device]))
    export = commands.add_parser(
        "export",
        parents=[talk],
        help="write a trained model as safetensors",
        description="Write the averaged weights of a run's newest checkpoint as safetensors.",
    )
    export.add_argument("training", type=Path, metavar="RUN", help="folder of the run")
    export.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    export.add_argument("--half", action="store_true", help="in half precision")
    export.add_argument(
        "--note",
        action="append",
        default=[],
        metavar="KEY=TEXT",
        help="put into the file's metadata: licence, data, results",
    )
    export.set_defaults(run=_export)
    _evaluate(commands, finds)


def _prepare(commands: Any, finds: argparse.ArgumentParser) -> None:
    prepare = commands.add_parser(
        "prepare",
        parents=[finds],
        help="make faces for training from photographs",
        description="Find, align, choose and pack the largest face of each photograph.",
    )
    prepare.add_argument(
        "photographs", nargs="+", type=Path, metavar="PHOTOGRAPHS", help="folder, or picture"
    )
    prepare.add_argument("-o", "--out", type=Path, required=True, metavar="DATA")
    prepare.add_argument("--size", type=int, default=512, help="of the faces (default: 512)")
    prepare.add_argument(
        "--quality",
        type=int,
        default=95,
        help="of the faces' JPEG, 1 to 100; 101: PNG (default: %(default)s)",
    )
    prepare.add_argument(
        "--least-size",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="leave out faces smaller than this share of --size (default: %(default)s)",
    )
    prepare.add_argument(
        "--least-sharpness",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="leave out faces less sharp, 0 to 1 (default: none)",
    )
    prepare.add_argument(
        "--split-by",
        choices=("person", "file"),
        default="person",
        help="what goes to training or validation as a whole (default: %(default)s)",
    )
    prepare.add_argument(
        "--person",
        default=r"(\d+)_",
        metavar="REGEX",
        help="what names begin with, its first group the person; other names are a person each "
        "(default: %(default)s)",
    )
    prepare.add_argument(
        "--every",
        type=int,
        default=8,
        help="every such person is kept for validation, 0 for none (default: %(default)s)",
    )
    prepare.add_argument(
        "--landmarks", type=Path, metavar="JSON", help="68 landmarks (x, y) by file name"
    )
    prepare.add_argument("--long-side", type=int, help="shrink photographs to detect faces")
    prepare.set_defaults(run=_run_prepare)


def _train(commands: Any, parent: argparse.ArgumentParser) -> None:
    train = commands.add_parser(
        "train",
        parents=[parent],
        help="train a model by a recipe",
        description="Train a model. The same command goes on with a run that was stopped.",
    )
    train.add_argument("recipe", metavar="RECIPE", help="name of a recipe, or a TOML file")
    train.add_argument("--data", type=Path, required=True, help="folder made by gfp prepare")
    train.add_argument("--run", dest="training", type=Path, required=True, help="folder of the run")
    train.add_argument(
        "--values",
        choices=("paper", "released"),
        default="paper",
        help="which to take where paper and released code differ (default: %(default)s)",
    )
    train.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of the recipe: --set data.batch=4",
    )
    train.add_argument("--minutes", type=float, help="stop after so long, with a checkpoint")
    train.add_argument("--threads", type=int, help="of PyTorch on the CPU")
    train.set_defaults(run=_run_train)


def _evaluate(commands: Any, finds: argparse.ArgumentParser) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        parents=[finds],
        help="measure models on faces",
        description="Make the papers' tables: clean faces are degraded and restored again; or, "
        "with --real, low-quality faces are restored as they are.",
    )
    evaluate.add_argument(
        "faces", type=Path, metavar="FACES", help="folder of pictures, or made by gfp prepare"
    )
    evaluate.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    evaluate.add_argument("--size", type=int, default=512, help="of the faces (default: 512)")
    evaluate.add_argument(
        "--model", action="append", metavar="MODEL", help="name or file; may be given again"
    )
    evaluate.add_argument("--real", action="store_true", help="faces of low quality, without truth")
    evaluate.add_argument("--aligned", action="store_true", help="the pictures are aligned faces")
    evaluate.add_argument(
        "--degradation",
        default="lite",
        metavar="RECIPE",
        help="whose degradation (default: %(default)s, GFP-GAN's of the paper without colours)",
    )
    evaluate.add_argument("--values", choices=("paper", "released"), default="paper")
    evaluate.add_argument("--seed", type=int, default=0, help="of the degradation (default: 0)")
    evaluate.add_argument(
        "--face-descriptor", type=Path, metavar="FILE", help="weights for Deg (default: if fetched)"
    )
    evaluate.add_argument("--lpips", choices=("vgg", "alex"), default="vgg")
    evaluate.add_argument("--lpips-file", type=Path, metavar="FILE", help="its trunk's weights")
    evaluate.add_argument("--inception", type=Path, metavar="FILE", help="weights for FID")
    evaluate.add_argument(
        "--reference",
        type=Path,
        metavar="FACES",
        help="folder of good faces for FID (default: the clean ones)",
    )
    evaluate.add_argument("--save", action="store_true", help="save all pictures too")
    evaluate.set_defaults(run=_run_evaluate)


def _run_prepare(options: argparse.Namespace, console: Console) -> int:
    from . import train

    return train.run_prepare(options, console)


def _run_train(options: argparse.Namespace, console: Console) -> int:
    from . import train

    return train.run_train(options, console)


def _export(options: argparse.Namespace, console: Console) -> int:
    from . import train

    return train.run_export(options, console)


def _run_evaluate(options: argparse.Namespace, console: Console) -> int:
    from . import evaluate

    return evaluate.run(options, console)
