"""Tune a restorer on a few photographs of one person, in minutes, and keep the difference alone.

Each step degrades the photographs anew (`wild`), restores them and compares. In every third step
one face is another's, whose target is what the base makes of it, so that the rest of the world
stays as it is. What is learned is judged on a photograph held back, or on crops of those that are
not, and the best state counts.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ..embed import FaceEmbedder
from ..faces import Preview, Progress
from ..io.atomic import open_atomic
from ..networks import registry
from ..networks.face_descriptor import FaceDescriptor
from ..networks.patch_discriminator import PatchDiscriminator
from ..weights import WeightsError
from ..weights.difference import MAX_BYTES, compressed, hash_of
from ..weights.loading import load_pickle
from ..wild import WILD, degrade_as, draw_kind
from . import losses
from .others import other_faces
from .photographs import Portrait, Portraits, border_of

logger = logging.getLogger(__name__)

Bytes = NDArray[np.uint8]
"""(S, S, 3) RGB."""

MIXTURE = {"paper": 0.5, "severe": 0.3, "mild": 0.1, WILD: 0.1}
"""Shares of the kinds of degradation, see `wild.degrade_as`."""
HOLD_FROM = 3
"""With as many photographs one is held back; with fewer, crops of them are."""
HELD = ("paper", "severe", "paper", "severe")
"""How the faces are degraded on which what is learned is judged."""
JUDGE_EVERY = 25
"""Steps between two judgements; a checkpoint is written then, too."""
PATIENCE = 3
"""Judgements without a gain, after which learning ends early."""
OTHERS_EVERY = 3
"""Steps of which one has another's face in it."""
ADVERSARIAL_FROM = 20
"""Step from which the discriminator, which begins with random weights, counts."""
WARM_UP, FALL_FROM = 10, 0.2
"""Steps in which the rate rises, and the share of them from which it falls along a cosine."""
AVERAGE = 0.97
"""Decay of the average of the weights, which is what counts: single steps are noisy."""
KEPT = 0.9
"""Share of the way to the tuned weights that is kept: between them and the base faces are more like
the person than at either end (weights averaged as in Wortsman et al. 2022, WiSE-FT)."""
_JUDGES_BYTES = 100_000_000
"""Memory of what judges and of their gradients, measured with the face descriptor."""
TURN, ZOOM, MOVE = 6.0, 0.07, 0.02
"""How far faces are turned (degrees), zoomed and moved (shares)."""


@dataclass(frozen=True)
class Learning:
    """Say how a person is learned."""

    steps: int = 160
    """At most."""
    minutes: float | None = None
    """At most; the number of steps, and so the result, then depends on the machine."""
    seed: int = 0
    batch: int = 1
    """Faces a step, beside another's in some."""
    rate: float = 2e-4
    """Learning rate of Adam."""
    max_bytes: int = MAX_BYTES
    """Size that the difference is cut to."""
    window: int = 192
    """Side in pixels of the windows that features and discriminator see; a multiple of 32."""
    weights: losses.Weights = field(default_factory=losses.Weights)

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ValueError: a number is out of range.
        """
        if self.steps < 1 or self.batch < 1:
            raise ValueError("steps and batch must be at least 1")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be above 0, not {self.minutes:g}")


@dataclass(frozen=True, eq=False)
class Learned:
    """What was learned."""

    tensors: dict[str, Tensor]
    """The difference to the base, see `difference.Difference.tensors`."""
    steps: int
    """After which this state was the best."""
    before: float
    """Loss of the base on the held faces."""
    after: float
    """Loss of this state on them, before it was cut to its size."""
    seconds: float
    """That the steps took, those before a stop included."""


def needed_bytes(net: nn.Module, size: int, batch: int = Learning.batch) -> int:
    """Estimate the memory that tuning a network takes beside what is loaded.

    Weights, gradients, the two averages of Adam, that of the weights, the base, the best state and
    the one before, weights and gradients in half precision: 36 bytes a number; and what a forward
    pass keeps for the backward one, counted on tensors without storage. Some steps have another's
    face beside the person's.
    """
    faces = max(batch, 2)
    numbers = sum(tensor.numel() for tensor in net.parameters())
    counted: set[int] = set()
    alive: list[Tensor] = []  # kept, so that no two have one number
    total = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage._cdata not in counted:
            counted.add(storage._cdata)
            alive.append(tensor)
            total += storage.nbytes()
        return tensor

    with _training():
        ghost = copy.deepcopy(net).to("meta").requires_grad_(True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            ghost(torch.zeros(faces, 3, size, size, device="meta"))
    return 36 * numbers + total + _JUDGES_BYTES


def learn(
    state: Mapping[str, Tensor],
    portraits: Portraits,
    learning: Learning | None = None,
    *,
    architecture: str | None = None,
    device: torch.device | str = "cpu",
    embedder: FaceEmbedder | None = None,
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    preview: Preview | None = None,
) -> Learned:
    """Tune a network on portraits of one person.

    The same call gives the same bits on one machine's CPU, stopped and resumed or not, unless
    ``minutes`` are set.

    Args:
        state: the base's state dict, under its official names. Not changed.
        portraits: of the person, aligned for this network.
        learning: how; by default as `Learning` says.
        architecture: of the base, see `networks.registry.build`.
        device: where to tune.
        embedder: judges likeness besides, if it is the face descriptor; others are not asked.
        checkpoint: file to go on from if it is there, and to keep what was learned so far in, every
            `JUDGE_EVERY` steps and when learning is stopped; it is removed at the end. None keeps
            nothing.
        progress: called with (steps done, steps) after each step; may raise to cancel.
        preview: called with (N, 3, S, S) held faces as restored by now.

    Raises:
        ValueError: the network cannot be tuned, there is no portrait, the checkpoint belongs to
            other photographs or settings, or nothing was gained.
        FloatingPointError: gradients are not finite.
    """
    learning = learning or Learning()
    if not len(portraits):
        raise ValueError("no portrait to learn from")
    with _training():
        student = _Student(state, portraits, learning, architecture, device, embedder)
        if checkpoint is not None and checkpoint.is_file():
            student.resume(checkpoint)
        try:
            student.run(progress, preview, checkpoint)
        except BaseException:
            if checkpoint is not None and student.step:
                student.save(checkpoint)
            raise
        learned = student.result()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return learned


class _Student:
    """The network that learns, and all that it learns by."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        portraits: Portraits,
        learning: Learning,
        architecture: str | None,
        device: torch.device | str,
        embedder: FaceEmbedder | None = None,
    ) -> None:
        self.device, self.learning = torch.device(device), learning
        self.base = {name: tensor.detach().clone().cpu() for name, tensor in state.items()}
        self.net = registry.build(self.base, architecture).eval().to(self.device)
        self.size = int(getattr(self.net, "out_size", portraits.size))
        self.parameters = [each for each in self.net.parameters() if each.is_floating_point()]
        _order_channels_last(self.parameters)
        self.first_layers = self._first_layers()
        self.likeness: losses.Likeness | None = None
        if embedder is not None and isinstance(embedder.net, FaceDescriptor):
            self.likeness = losses.Likeness(embedder.net).to(self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(learning.seed)
            self.discriminator = PatchDiscriminator(ndf=24, n_layers=3, plain=True).to(self.device)
        fused = self.device.type in ("cpu", "cuda")
        adam = torch.optim.Adam
        self.optimizer = adam(self.parameters, lr=learning.rate, betas=(0.9, 0.99), fused=fused)
        self.judge_optimizer = adam(
            self.discriminator.parameters(), lr=4e-4, betas=(0.0, 0.99), fused=fused
        )
        every = portraits.portraits
        holds = len(every) >= HOLD_FROM
        self.portraits = every[:-1] if holds else every
        self.held = self._pairs(every[-1:] if holds else every)
        self.average = copy.deepcopy(self.net).requires_grad_(False)
        self.others = self._others()
        self.step, self.seconds, self.misses = 0, 0.0, 0
        self.before = self.best = self._judge(None)
        self.best_step, self.best_state = 0, self._state()
        self.mark = self._mark(portraits)

    def run(
        self, progress: Progress | None, preview: Preview | None, checkpoint: Path | None = None
    ) -> None:
        """Learn until the end, early or not, with checkpoints that outlast a kill."""
        steps = self.learning.steps
        begun, before = time.monotonic(), self.seconds
        while self.step < steps and self.misses < PATIENCE and self._share() < 1:
            self._set_rate()
            self._learn(np.random.default_rng((self.learning.seed, self.step)))
            self.step += 1
            self.seconds = before + time.monotonic() - begun
            is_last = self.step == steps or self._share() >= 1
            if self.step % JUDGE_EVERY == 0 or is_last:
                self._compare_with_best(preview)
                if checkpoint is not None:
                    self.save(checkpoint)
            if progress is not None:
                progress(self.step, steps)

    def result(self) -> Learned:
        """Return the best state as its difference to the base.

        Raises:
            ValueError: nothing was gained.
        """
        if not self.best < self.before:
            raise ValueError(
                f"nothing was learned in {self.step} steps: give better photographs, or more steps"
            )
        averaged = {
            name: torch.lerp(tensor, self.best_state[name], KEPT)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in self.base.items()
        }
        tensors = compressed(self.base, averaged, self.learning.max_bytes)
        return Learned(tensors, self.best_step, self.before, self.best, self.seconds)

    def save(self, path: Path) -> None:
        """Write a checkpoint, whole or not at all."""
        content = {
            "mark": self.mark,
            "step": self.step,
            "seconds": self.seconds,
            "misses": self.misses,
            "best": [self.best_step, self.best],
            "best_state": self.best_state,
            "net": _copied(self.net),
            "average": self._state(),
            "discriminator": self.discriminator.state_dict(),
            "optimizers": [self.optimizer.state_dict(), self.judge_optimizer.state_dict()],
        }
        with open_atomic(path) as file:
            torch.save(content, file)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: the checkpoint cannot be read, or belongs to another learning.
        """
        try:
            content: dict[str, Any] = load_pickle(path)
        except WeightsError as error:
            raise ValueError(f"{error}; remove {path} to begin anew") from error
        if content.get("mark") != self.mark:
            raise ValueError(
                f"{path} belongs to other photographs, another base or other settings: remove it "
                "to begin anew"
            )
        self.step, self.seconds, self.misses = (
            content["step"],
            content["seconds"],
            content["misses"],
        )
        self.best_step, self.best = content["best"]
        self.best_state = content["best_state"]
        self.net.load_state_dict(content["net"])
        self.average.load_state_dict(content["average"])
        self.discriminator.load_state_dict(content["discriminator"])
        for optimizer, saved in zip(
            (self.optimizer, self.judge_optimizer), content["optimizers"], strict=True
        ):
            optimizer.load_state_dict(saved)
        logger.info("Going on from step %d.", self.step)

    # ------------------------------------------------------------------ one step

    def _learn(self, rng: np.random.Generator) -> None:
        learning = self.learning
        degraded, clean = self._batch(rng, learning.batch)
        own = len(degraded)
        if self.others and self.step % OTHERS_EVERY == OTHERS_EVERY - 1:
            own = max(1, own - 1)
            poor, target = self.others[int(rng.integers(len(self.others)))]
            degraded = torch.cat([degraded[:own], poor])
            clean = torch.cat([clean[:own], target])
        with self._autocast():
            restored = self.net(degraded.contiguous(memory_format=torch.channels_last))
        restored = restored.float()
        loss = self._plain(restored, clean).mean()
        loss = loss + self._of_windows(restored[:own], clean[:own], rng)
        if self.likeness is not None:
            loss = loss + self._likeness(self.likeness, restored[:own], clean[:own])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if not math.isfinite(float(norm)):
            raise FloatingPointError(f"gradients are not finite at step {self.step}")
        self.optimizer.step()
        share = 1 - min(AVERAGE, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for mean, current in zip(self.average.parameters(), self.parameters, strict=True):
                mean.lerp_(current, share)

    def _plain(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Compute the terms that need no network, (B,)."""
        weights = self.learning.weights
        return (
            weights.pixels * losses.absolute(restored, clean)
            + weights.edges * losses.edges(restored, clean)
            + weights.detail * losses.detail(restored, clean)
        )

    def _of_windows(self, restored: Tensor, clean: Tensor, rng: np.random.Generator) -> Tensor:
        """Let features and discriminator judge one window of each face; train the latter."""
        weights = self.learning.weights
        side = min(self.learning.window, self.size)
        # The inner face: brows to chin.
        low, high = round(0.15 * self.size), max(round(0.9 * self.size) - side, 0)
        top, left = (int(rng.integers(min(low, high), high + 1)) for _ in range(2))
        fake = restored[..., top : top + side, left : left + side]
        real = clean[..., top : top + side, left : left + side]
        loss = restored.new_zeros(())
        if self.first_layers is not None:
            with self._autocast():
                judged = self.first_layers(fake)
                with torch.no_grad():
                    expected = self.first_layers(real)
            loss = loss + weights.features * losses.features(judged, expected)
        return loss + weights.adversarial * self._discriminate(fake, real)

    def _likeness(self, judge: losses.Likeness, restored: Tensor, clean: Tensor) -> Tensor:
        """Let the face descriptor judge whole faces, scalar."""
        weights = self.learning.weights
        with self._autocast():
            features = judge.features(restored, clean)
        identity = judge.identity(restored, clean)
        return weights.identity * identity + weights.descriptor * features

    def _discriminate(self, fake: Tensor, real: Tensor) -> Tensor:
        """Train the discriminator, and let it judge, once it has learned something."""
        with self._autocast():
            judged = self.discriminator(torch.cat([real, fake.detach()])).float().chunk(2)
        loss = F.softplus(-judged[0]).mean() + F.softplus(judged[1]).mean()
        self.judge_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.judge_optimizer.step()
        if self.step < ADVERSARIAL_FROM:
            return fake.new_zeros(())
        with self._autocast():
            score = self.discriminator(fake).float()
        return F.softplus(-score).mean()

    def _batch(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
        """Draw faces, degraded and clean, (count, 3, S, S) in [-1, 1]."""
        shares = np.array([portrait.weight for portrait in self.portraits])
        pairs = []
        for _ in range(count):
            portrait = self.portraits[int(rng.choice(len(self.portraits), p=shares / shares.sum()))]
            face = augmented(portrait, self.size, rng)
            pairs.append(degrade_as(draw_kind(rng, MIXTURE), face, rng))
        return self._to_net([pair[0] for pair in pairs]), self._to_net([pair[1] for pair in pairs])

    def _first_layers(self) -> losses.FirstLayers | None:
        """Copy what the base sees first; None where the base is of another class."""
        try:
            layers = losses.FirstLayers(self.net)
        except ValueError as error:
            logger.info("Learning goes without features: %s.", error)
            return None
        return copy.deepcopy(layers).requires_grad_(False)

    # ------------------------------------------------------------------ judging

    def _pairs(self, portraits: list[Portrait]) -> list[tuple[Tensor, Tensor]]:
        """Degrade what is held back, in ways that no step draws."""
        pairs = []
        for number, kind in enumerate(HELD):
            rng = np.random.default_rng((self.learning.seed, number, 1))
            face = augmented(portraits[number % len(portraits)], self.size, rng)
            degraded, clean = degrade_as(kind, face, rng)
            pairs.append((self._to_net([degraded]), self._to_net([clean])))
        return pairs

    def _others(self) -> list[tuple[Tensor, Tensor]]:
        """Restore others' faces with the base; degraded and restored, (1, 3, S, S) each."""
        pairs = []
        for number, face in enumerate(other_faces(self.size)):
            rng = np.random.default_rng((self.learning.seed, number, 2))
            degraded = self._to_net([degrade_as(("mild", "paper")[number % 2], face, rng)[0]])
            pairs.append((degraded, self._restored(degraded).clamp(-1, 1)))
        return pairs

    def _judge(self, preview: Preview | None) -> float:
        """Compute the mean loss on the held faces."""
        total, previews = 0.0, []
        for degraded, clean in self.held:
            restored = self._restored(degraded)
            total += float(self._plain(restored, clean).mean()) / len(self.held)
            previews.append(restored)
        if preview is not None:
            preview((torch.cat(previews) / 2 + 0.5).clamp(0, 1))
        return total

    def _compare_with_best(self, preview: Preview | None) -> None:
        score = self._judge(preview)
        logger.debug("Step %d: held faces %.4f (base %.4f).", self.step, score, self.before)
        if score < self.best:
            self.best, self.best_step, self.best_state = score, self.step, self._state()
            self.misses = 0
        else:
            self.misses += 1

    @torch.no_grad()
    def _restored(self, degraded: Tensor) -> Tensor:
        with self._autocast():
            restored = self.average(degraded.contiguous(memory_format=torch.channels_last))
        result: Tensor = restored.float()
        return result

    # ------------------------------------------------------------------ helpers

    def _share(self) -> float:
        """The share of the way that is done, by steps or by minutes."""
        share = self.step / self.learning.steps
        if self.learning.minutes is not None:
            share = max(share, self.seconds / (60 * self.learning.minutes))
        return share

    def _set_rate(self) -> None:
        fall = max(0.0, (self._share() - FALL_FROM) / (1 - FALL_FROM))
        factor = min(1.0, (self.step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * fall))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning.rate * factor

    def _state(self) -> dict[str, Tensor]:
        return _copied(self.average)

    def _to_net(self, pictures: list[Bytes]) -> Tensor:
        stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        return stacked.float().div_(127.5).sub_(1).to(self.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        kind = self.device.type
        if kind == "cpu":
            is_fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        else:
            is_fast = kind == "cuda" and torch.cuda.is_bf16_supported()
        return torch.autocast(kind, torch.bfloat16) if is_fast else nullcontext()

    def _mark(self, portraits: Portraits) -> str:
        """What a checkpoint must agree with to be gone on from."""
        digest = hashlib.sha256(hash_of(self.base).encode())
        for portrait in portraits.portraits:
            digest.update(portrait.face.tobytes() + f"{portrait.weight}".encode())
        settings = (self.learning.steps, self.learning.seed, self.learning.batch)
        if self.likeness is not None:
            digest.update(hash_of(self.likeness.state_dict()).encode())
        digest.update(repr((settings, self.learning.rate)).encode())
        return digest.hexdigest()


def augmented(portrait: Portrait, size: int, rng: np.random.Generator) -> Bytes:
    """Mirror, turn, zoom, move and tint a portrait at random.

    Args:
        portrait: with its border.
        size: side of the result in pixels.
        rng: source of all randomness.
    """
    face, border = portrait.face, border_of(size)
    center = (face.shape[0] - 1) / 2
    turn, zoom = rng.uniform(-TURN, TURN), rng.uniform(1 - ZOOM, 1 + ZOOM)
    matrix: Any = cv2.getRotationMatrix2D((center, center), turn, zoom)
    matrix[:, 2] += rng.uniform(-MOVE, MOVE, 2) * size - border
    crop: Any = cv2.warpAffine(
        face, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    # Light and camera: exposure, contrast and a slight cast.
    levels = np.arange(256, dtype=np.float32) / 255
    gain = rng.uniform(0.88, 1.12) * rng.uniform(0.96, 1.04, 3)
    curve = levels[:, None] ** rng.uniform(0.85, 1.18) * gain
    table = np.clip(curve * 255, 0, 255).round().astype(np.uint8)
    return np.stack([table[:, channel][crop[..., channel]] for channel in range(3)], axis=-1)


def _copied(net: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a network's state dict on the CPU."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in net.state_dict().items()
    }


def _order_channels_last(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


@contextmanager
def _training() -> Iterator[None]:
    """Leave the inference mode of a host, if it is on, and record gradients."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
