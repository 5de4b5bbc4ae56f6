"""A restorer that has learned a person: what was learned for that face, its base for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..faces import Faces, Preview, Progress
from ..options import Engine, Precision, Provider
from ..restore import Restorer

Build = Callable[[float], nn.Module]
"""The network for a share of what was learned; 0 gives the base."""


class PersonRestorer(Restorer):
    """Runs a base over some faces, and what was learned of a person over others."""

    def __init__(
        self,
        build: Build,
        embedding: Tensor | None = None,
        *,
        device: torch.device | str | None = None,
        precision: Precision = "auto",
        engine: Engine = "auto",
        provider: Provider = "auto",
    ) -> None:
        """Build both networks, see `Restorer`.

        Args:
            build: makes the network; called again when another share is asked for.
            embedding: (D,) of length 1, who the person is; None if that is not known.
            device: where to move both networks.
            precision: of their arithmetic.
            engine: what runs them.
            provider: what onnxruntime runs on.

        Raises:
            ValueError: as `Restorer`.
        """
        self._build = build
        self.embedding = embedding
        self.base = Restorer(
            build(0.0), device=device, precision=precision, engine=engine, provider=provider
        )
        learned = self._restorer(1.0, engine)
        # One attribute, for another thread may set it between two.
        self._learned = 1.0, learned
        self.net: nn.Module = nn.ModuleList([self.base.net, learned.net])
        self.precision, self.size, self.name = precision, self.base.size, self.base.name
        self.has_fidelity = self.base.has_fidelity
        self.has_steps = self.base.has_steps
        self.engine: Engine = engine
        self.provider: Provider = provider

    @property
    def bytes_per_face(self) -> int:
        """Memory that one face needs while it goes through a network."""
        return self.base.bytes_per_face

    def restore(
        self,
        faces: Faces,
        *,
        fidelity: float | None = None,
        seed: int | None = None,
        steps: int | None = None,
        chunk: int | None = None,
        progress: Progress | None = None,
        preview: Preview | None = None,
        is_person: Sequence[bool] | None = None,
        person_strength: float = 1.0,
    ) -> Faces:
        """Restore the crops of all faces, see `Restorer.restore`.

        Args:
            faces: as there; so are the others that are not named here.
            fidelity: as there.
            seed: as there.
            steps: as there.
            chunk: as there.
            progress: as there.
            preview: as there.
            is_person: a face, whether it is the person's; None for all.
            person_strength: share of what was learned; 0 gives the base's result, bit for bit.

        Raises:
            ValueError: as there, or the share lies outside [0, 1].
        """
        if not 0 <= person_strength <= 1:
            raise ValueError(f"person_strength must be from 0 to 1, not {person_strength}")
        belongs = [True] * len(faces) if is_person is None else list(is_person)
        if len(belongs) != len(faces):
            raise ValueError(f"is_person says of {len(belongs)} faces, not of {len(faces)}")
        own = [index for index, value in enumerate(belongs) if value and person_strength > 0]
        rest = [index for index in range(len(faces)) if index not in set(own)]
        done = 0
        parts = []
        for indices, restorer in ((rest, self.base), (own, None)):
            if not indices and not (restorer is self.base and not own):
                continue
            running = self._at(person_strength) if restorer is None else restorer
            part = running.restore(
                faces.select(indices),
                fidelity=fidelity,
                seed=seed,
                steps=steps,
                chunk=chunk,
                progress=_after(progress, done, len(faces)),
                preview=preview,
            )
            done += len(indices)
            parts.append((indices, part.restored))
        if len(parts) == 1:
            return replace(faces, restored=parts[0][1])
        first = parts[0][1]
        assert first is not None
        restored = first.new_empty(len(faces), *first.shape[1:])
        for indices, tensor in parts:
            assert tensor is not None
            restored[indices] = tensor
        return replace(faces, restored=restored)

    def _at(self, strength: float) -> Restorer:
        """Return what was learned at a share; the one before it is let go."""
        learned_strength, learned = self._learned
        if strength != learned_strength:
            learned = self._restorer(strength, self.engine)
            self._learned = strength, learned
            assert isinstance(self.net, nn.ModuleList)
            self.net[1] = learned.net
        return learned

    def _restorer(self, strength: float, engine: Engine) -> Restorer:
        return Restorer(
            self._build(strength),
            device=self.base.device,
            precision=self.base.precision,
            engine=engine,
            provider=self.base.provider,
        )


def _after(progress: Progress | None, done: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda part, _: progress(done + part, total)
