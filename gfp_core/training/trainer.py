"""The training loop of every recipe. It can be stopped at any step and goes on as if it had not."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..degradation import degrade_with_seed
from ..faces import Progress
from ..io.atomic import write_text
from ..metrics.distances import psnr
from . import checkpoints, models
from .data import FacePairs, Pair, Steps, to_net
from .monitor import Monitor
from .objective import Objective
from .pack import FacePack
from .processes import Processes
from .recipes import Recipe, Schedule, renamed
from .regions import draw_windows

logger = logging.getLogger(__name__)

RECIPE = "recipe.json"
MOST_SKIPPED = 20
"""Steps that float16 may skip one after the other before it is taken for broken."""
_VALIDATION_SEED = 1  # not the training's, so that its samples are others


def rate_factor(step: int, schedule: Schedule) -> float:
    """What the learning rates are multiplied by at a step, from 0."""
    factor = schedule.gamma ** sum(step >= milestone for milestone in schedule.milestones)
    if step < schedule.warmup:
        factor *= (step + 1) / schedule.warmup
    if schedule.cosine_from < 1:
        share = (step / schedule.steps - schedule.cosine_from) / (1 - schedule.cosine_from)
        factor *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, share))))
    return factor


class Trainer:
    """Networks, optimizers and data of a run, and where it is."""

    def __init__(
        self,
        recipe: Recipe,
        pack: FacePack,
        run: Path,
        processes: Processes,
        *,
        objective: Objective | None = None,
    ) -> None:
        """Build all, and go on from the newest checkpoint of the run if there is one.

        Args:
            recipe: what to train.
            pack: the prepared faces.
            run: folder of checkpoints, log and pictures.
            processes: where to train.
            objective: the losses, by default the recipe's.

        Raises:
            ValueError: recipe, faces or checkpoint cannot be used; says why.
            FileNotFoundError: weights of a net that the losses need are not there.
        """
        self.recipe, self.run, self.processes = recipe, run, processes
        self.device = processes.device
        seed = recipe.run.seed
        training, validation = pack.of("training"), pack.of("validation")
        self.pairs = FacePairs(pack, training, recipe.data, recipe.degradation, seed=seed)
        self._validation = self._validation_batch(pack, validation or training)
        if not validation:
            logger.warning("%s has no validation faces: the sheets show others", pack.folder)

        torch.manual_seed(seed)
        self.net = models.build_generator(recipe).to(self.device).train()
        self.discriminator = self._placed(models.build_discriminator(recipe))
        self.components = self._placed(models.build_components(recipe))
        self.objective = (objective or Objective(recipe)).to(self.device)
        if recipe.run.channels_last:
            self._order_channels_last()
        self.average = copy.deepcopy(self.net).requires_grad_(False).eval()

        self.optimizers = self._build_optimizers()
        self._rates = {
            name: [group["lr"] for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }
        self._trained = {
            id(parameter)
            for optimizer in self.optimizers.values()
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        half = recipe.run.precision == "float16"
        if half and self.device.type != "cuda":
            raise ValueError("run.precision float16 needs CUDA: take bfloat16 or float32")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.step, self.samples, self._skipped = 0, 0, 0
        self._resume()

    def _order_channels_last(self) -> None:
        for module in self._networks().values():
            for parameter in module.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def _build_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        settings = self.recipe.optimizer
        adam = partial(torch.optim.Adam, fused=self.device.type in ("cpu", "cuda"))
        optimizers: dict[str, torch.optim.Optimizer] = {
            "net": adam(
                models.parameter_groups(self.net, self.recipe), lr=settings.lr, betas=settings.betas
            )
        }
        if self.discriminator is not None:
            optimizers["discriminator"] = adam(
                [
                    parameter
                    for parameter in self.discriminator.parameters()
                    if parameter.requires_grad
                ],
                lr=settings.discriminator_lr,
                betas=settings.discriminator_betas,
            )
        if self.components is not None:
            optimizers["components"] = adam(
                self.components.parameters(),
                lr=settings.component_lr,
                betas=settings.component_betas,
            )
        return optimizers

    # ------------------------------------------------------------------ the loop

    def train(self, *, minutes: float = math.inf, progress: Progress | None = None) -> bool:
        """Train to the recipe's last step, or for some minutes.

        Args:
            minutes: after which to stop, with a checkpoint.
            progress: called after each step with (steps done, steps of the recipe).

        Returns:
            Whether the last step was reached.

        Raises:
            FloatingPointError: gradients are not finite; names the losses of that step.
        """
        run, steps = self.recipe.run, self.recipe.schedule.steps
        started, first = time.monotonic(), self.step
        monitor = Monitor(self.run, active=self.processes.first)
        monitor.cut_log(self.step)
        if self.processes.first:
            write_text(self.run / RECIPE, json.dumps(self.recipe.as_dict(), indent=1))
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        try:
            for batch in self._batches(steps):
                for name, value in self.one_step(batch).items():
                    sums[name] = sums.get(name, 0.0) + value
                    counts[name] = counts.get(name, 0) + 1
                late = self._any(time.monotonic() - started > minutes * 60)
                last = late or self.step == steps
                if self.step % run.log_every == 0 or last:
                    seconds = (time.monotonic() - started) / (self.step - first)
                    values = {name: total / counts[name] for name, total in sums.items()}
                    monitor.write(self.step, {**values, "seconds_a_step": seconds})
                    sums, counts = {}, {}
                if self.step % run.sheet_every == 0 or self.step == steps:
                    columns = self.validate()
                    score = psnr(columns["restored"], columns["ground truth"]).mean().item()
                    monitor.show(self.step, columns)
                    monitor.write(self.step, {"validation_psnr": score})
                if self.step % run.save_every == 0 or last:
                    self.save()
                if progress is not None:
                    progress(self.step, steps)
                if late:
                    logger.info("stopped after %.1f minutes at step %d", minutes, self.step)
                    break
        finally:
            monitor.close()
        return self.step >= steps

    def one_step(self, batch: Pair) -> dict[str, float]:
        """Train the network, then its discriminators, on one batch.

        Returns:
            The losses before their weights, by name.
        """
        step, channels = self.step, self._memory_format()
        clean = to_net(batch.clean.to(self.device)).contiguous(memory_format=channels)
        x = self._degraded(batch, clean).contiguous(memory_format=channels)
        regions = batch.regions.to(self.device)
        windows = self._windows(regions)
        self._set_rates(step)
        judged = self.recipe.loss.adversarial.at(step) != 0 and self.discriminator is not None
        parts = self.recipe.loss.component, self.recipe.loss.component_style
        looked_at = any(term.at(step) for term in parts) and self.components is not None

        self._learning(self.discriminator, False)
        self._learning(self.components, False)
        with self._autocast():
            restored = models.restore(self.net, x, self._noise(step))
            loss, terms = self.objective.generator(
                step,
                restored,
                clean,
                regions,
                self.net,
                self.discriminator,
                self.components,
                windows,
            )
        self._descend("net", loss, self.net, terms, self.recipe.optimizer.clip)
        self._learning(self.discriminator, True)
        self._learning(self.components, True)

        fake = restored.image.detach()
        if judged and self.discriminator is not None:
            seen = self.objective.seen(fake, windows), self.objective.seen(clean, windows)
            with self._autocast():
                judging = self.objective.discriminator(self.discriminator, *seen)
            loss = torch.stack([*judging.values()]).sum()
            penalty = self.objective.penalty(step, self.discriminator, seen[1])
            if penalty is not None:
                judging["r1"] = penalty
                loss = loss + self.objective.penalty_weight * penalty
            self._descend("discriminator", loss, self.discriminator, judging)
            terms.update(judging)
        if looked_at and self.components is not None:
            with self._autocast():
                judging = self.objective.component_discriminators(
                    self.components, fake, clean, regions
                )
            loss = torch.stack([*judging.values()]).sum()
            self._descend("components", loss, self.components, judging)
            terms.update(judging)
        self.scaler.update()
        self._follow()
        self.step += 1
        self.samples += self.recipe.data.batch * self.processes.count
        return {name: term.item() for name, term in terms.items()}

    @torch.no_grad()
    def validate(self) -> dict[str, Tensor]:
        """The same validation faces every time: degraded, restored by the average, and clean.

        Returns:
            (N, 3, S, S) float32 RGB in [0, 1] each, on the CPU.
        """
        batch = self._validation
        restored = []
        for face in batch.degraded.split(1):
            with self._autocast():
                image = self.average(to_net(face.to(self.device)))
            restored.append(image.float().cpu())
        return {
            "input": batch.degraded.float() / 255,
            "restored": (torch.cat(restored) * 0.5 + 0.5).clamp(0, 1),
            "ground truth": batch.clean.float() / 255,
        }

    # ------------------------------------------------------------------ parts of a step

    def _batches(self, steps: int) -> Iterable[Pair]:
        data, processes = self.recipe.data, self.processes
        # Not forked: OpenCV's threads would be missing there, and each call of it wait for them.
        context = "spawn" if data.workers else None
        together = data.batch * processes.count
        last = self.samples + (steps - self.step) * together
        order = Steps(self.samples, last, data.batch, processes.rank, processes.count)
        return DataLoader(
            self.pairs,
            data.batch,
            sampler=order,
            num_workers=data.workers,
            multiprocessing_context=context,
            worker_init_fn=_one_thread,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # its own, or each start would move the random numbers
        )

    def _degraded(self, batch: Pair, clean: Tensor) -> Tensor:
        data = self.recipe.data
        if data.degraded and data.degrade_on == "device":
            return self.pairs.degrade_batch(batch, self.device).mul_(2).sub_(1)
        return to_net(batch.degraded.to(self.device)) if data.degraded else clean

    def _windows(self, regions: Tensor) -> Tensor | None:
        data = self.recipe.data
        if not data.window:
            return None
        seed = (self.recipe.run.seed << 40) + (self.processes.rank << 32) + self.step
        return draw_windows(regions, data.window, data.size, seed)

    def _noise(self, step: int) -> torch.Generator | None:
        if not self.recipe.model.fresh_noise:
            return None
        seed = (self.recipe.run.seed << 40) + (self.processes.rank << 32) + step
        return torch.Generator(self.device).manual_seed(seed)

    def _set_rates(self, step: int) -> None:
        factor = rate_factor(step, self.recipe.schedule)
        for name, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self._rates[name], strict=True):
                group["lr"] = rate * factor

    def _descend(
        self, name: str, loss: Tensor, module: nn.Module, terms: dict[str, Tensor], clip: float = 0
    ) -> None:
        """One step of an optimizer, if all gradients are finite."""
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.processes.average_gradients(module.parameters())
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(module.parameters(), clip or math.inf)
        if torch.isfinite(norm):
            self._skipped = 0
        else:  # float16 overflows now and then: the scaler leaves the step out and scales less
            self._skipped += 1
            if not self.scaler.is_enabled() or self._skipped > MOST_SKIPPED:
                values = ", ".join(f"{key} {value.item():.3g}" for key, value in terms.items())
                raise FloatingPointError(
                    f"gradients of the {name} are not finite at step {self.step} ({values}); the "
                    "last checkpoint is from before: lower the learning rate or set "
                    "run.precision=float32"
                )
        self.scaler.step(optimizer)

    @torch.no_grad()
    def _follow(self) -> None:
        """The averaged weights follow those of the network."""
        decay = min(self.recipe.schedule.ema, (1 + self.step) / (10 + self.step))
        for mean, value in zip(self.average.parameters(), self.net.parameters(), strict=True):
            mean.lerp_(value.detach(), 1 - decay)
        for mean_buffer, buffer in zip(self.average.buffers(), self.net.buffers(), strict=True):
            mean_buffer.copy_(buffer)

    def _learning(self, module: nn.Module | None, on: bool) -> None:
        """Whether discriminators gather gradients; frozen ones never do."""
        if module is None:
            return
        for parameter in module.parameters():
            if id(parameter) in self._trained:
                parameter.requires_grad_(on)

    def _autocast(self) -> torch.autocast:
        kind = getattr(torch, self.recipe.run.precision)
        enabled = kind is not torch.float32
        return torch.autocast(self.device.type, kind if enabled else None, enabled=enabled)

    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.recipe.run.channels_last else torch.contiguous_format

    def _placed(self, module: Any) -> Any:
        return None if module is None else module.to(self.device).train()

    def _any(self, value: bool) -> bool:
        """Whether it is so in any process, for all must stop together."""
        return bool(self.processes.mean(torch.tensor(float(value), device=self.device)) > 0)

    def _validation_batch(self, pack: FacePack, faces: list[int]) -> Pair:
        """The first faces as they are, each degraded in its own way."""
        clean, bad = [], []
        for index in faces[: self.recipe.run.sheet_faces]:
            face = pack.centre(index)
            seed = (self.recipe.run.seed, index, _VALIDATION_SEED)
            changed = degrade_with_seed(face, seed, self.recipe.degradation)
            clean.append(torch.from_numpy(face).permute(2, 0, 1))
            bad.append(torch.from_numpy(changed).permute(2, 0, 1))
        inputs = torch.stack(bad if self.recipe.data.degraded else clean)
        return Pair(inputs, torch.stack(clean), torch.empty(0), torch.empty(0))

    # ------------------------------------------------------------------ checkpoints

    def _networks(self) -> dict[str, nn.Module]:
        networks = {"net": self.net}
        if self.discriminator is not None:
            networks["discriminator"] = self.discriminator
        if self.components is not None:
            networks["components"] = self.components
        return networks

    def save(self) -> None:
        """Write a checkpoint of all that the next step depends on."""
        self.processes.average_buffers(*self._networks().values())
        if self.processes.first:
            state = {
                "step": self.step,
                "samples": self.samples,
                "networks": {name: net.state_dict() for name, net in self._networks().items()},
                "average": self.average.state_dict(),
                "optimizers": {
                    name: optimizer.state_dict() for name, optimizer in self.optimizers.items()
                },
                "scaler": self.scaler.state_dict(),
                "random": checkpoints.random_states(),
                "recipe": json.dumps(self.recipe.as_dict()),
            }
            checkpoints.save(self.run, self.step, state, self.recipe.run.keep)
        self.processes.wait()

    def _resume(self) -> None:
        path = checkpoints.latest(self.run)
        if path is None:
            return
        state = checkpoints.load(path, self.device)
        before = renamed(json.loads(state["recipe"]))
        for key in _differences(before, self.recipe.as_dict()):
            logger.warning("the run goes on with another %s", key)
        networks = {**self._networks(), "average": self.average}
        try:
            for name, net in networks.items():
                net.load_state_dict(
                    state["average"] if name == "average" else state["networks"][name]
                )
            optimizers = state.get("optimizers") or state["optimisers"]  # of one version before
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(optimizers[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{path} is of a run with other networks ({error}): take another folder for --run"
            ) from error
        self.scaler.load_state_dict(state["scaler"])
        checkpoints.set_random_states(state["random"])
        self.step, self.samples = state["step"], state["samples"]
        logger.info("going on at step %d of %s", self.step, path)


def _differences(before: Any, now: Any, where: str = "") -> list[str]:
    """The values in which two recipes differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted({*before, *now})
        return [
            line
            for key in keys
            for line in _differences(before.get(key), now.get(key), f"{where}.{key}".lstrip("."))
        ]
    return [] if before == now else [f"{where}: {now}, not {before}"]


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)
