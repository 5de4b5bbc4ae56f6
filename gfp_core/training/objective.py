"""A recipe's losses, put together: what the network minimizes, and what its discriminators do."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from . import losses
from .feature_nets import VGGFeatures, load_identity, load_perceptual
from .models import Restored, last_layer
from .recipes import Recipe
from .regions import COMPONENTS, crop_regions, cut_windows

logger = logging.getLogger(__name__)


class Objective(nn.Module):
    """The losses of a recipe, with the nets they compare by."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        perceptual: nn.Module | None = None,
        identity: nn.Module | None = None,
    ) -> None:
        """Load the nets that the recipe's terms need.

        Args:
            recipe: whose losses.
            perceptual: instead of the recipe's: (N, 3, S, S) RGB in [0, 1] -> list of features.
            identity: likewise, -> (N, D) descriptors.

        Raises:
            FileNotFoundError: a net's weights are not there; says how to get them.
            ValueError: the recipe contradicts itself.
        """
        super().__init__()
        self.recipe, self.loss = recipe, recipe.loss
        terms = self.loss.terms()
        self.perceptual = self.identity = None
        if "perceptual" in terms or "style" in terms:
            nets = recipe.nets
            self.perceptual = perceptual or load_perceptual(nets.perceptual, nets.perceptual_file)
            self.perceptual.requires_grad_(False)
        if "identity" in terms or "descriptor" in terms:
            self.identity = identity or load_identity(recipe.nets.identity_file)
            self.identity.requires_grad_(False)

    # ------------------------------------------------------------------ the network

    def generator(
        self,
        step: int,
        restored: Restored,
        clean: Tensor,
        regions: Tensor,
        net: nn.Module,
        discriminator: nn.Module | None,
        components: nn.ModuleDict | None,
        windows: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the network minimizes at a step.

        Args:
            step: from 0; it decides which terms count.
            restored: what the network made.
            clean: (B, 3, S, S) RGB in [-1, 1].
            regions: (B, 3, 3), eyes and mouth.
            net: the network, of which only the last layer is looked at.
            discriminator: of whole pictures.
            components: discriminators of eyes and mouth.
            windows: what of the pictures the perceptual net and the discriminator see, from
                `regions.draw_windows`; None for all.

        Returns:
            The sum, and the terms before their weights, by name.
        """
        image = restored.image
        terms: dict[str, Tensor] = dict(restored.terms)
        if self._counts("l1", step):
            terms["l1"] = losses.l1(image, clean)
        if self._counts("pyramid", step):
            terms["pyramid"] = losses.pyramid(restored.pyramid, clean)
        if self._counts("perceptual", step) or self._counts("style", step):
            terms.update(self._perceptual(self.seen(image, windows), self.seen(clean, windows)))
        if self._counts("identity", step):
            assert self.identity is not None
            distance = losses.DISTANCES[self.loss.identity_distance]
            with torch.no_grad():
                truth = self.identity(clean * 0.5 + 0.5)
            terms["identity"] = losses.identity(self.identity(image * 0.5 + 0.5), truth, distance)
        if self._counts("descriptor", step):
            net_of_faces: Any = self.identity
            with torch.no_grad():
                target = net_of_faces.activations(clean * 0.5 + 0.5)
            terms["descriptor"] = losses.descriptor(
                net_of_faces.activations(image * 0.5 + 0.5), target
            )
        if self._counts("tone", step):
            terms["tone"] = losses.tone(image, clean, max(1, image.shape[2] // 32))
        if self._counts("eye_tone", step) or self._counts("parts", step):
            terms.update(self._parts(image, clean, regions))
        if self._counts("component", step) or self._counts("component_style", step):
            assert components is not None
            terms.update(self._components(image, clean, regions, components))
        total = torch.zeros((), device=image.device)
        for name, term in terms.items():
            total = total + self._weight(name, step) * term
        if self._counts("adversarial", step):
            assert discriminator is not None
            fake = discriminator(self.seen(image, windows))
            hinge = self.recipe.discriminator.loss == "hinge"
            adversarial = (losses.generator_hinge if hinge else losses.generator_logistic)(fake)
            weight: Tensor | float = self._weight("adversarial", step)
            if self.recipe.discriminator.adaptive:
                # Against L1 and features, as in the released code, not the other terms.
                pair = [name for name in ("l1", "perceptual") if self._counts(name, step)]
                near = torch.stack([self._weight(name, step) * terms[name] for name in pair]).sum()
                ratio = losses.adaptive_weight(near, adversarial, last_layer(net))
                terms["adaptive_weight"] = ratio
                weight = weight * ratio
            terms["adversarial"] = adversarial
            total = total + weight * adversarial
        return total, terms

    def seen(self, images: Tensor, windows: Tensor | None) -> Tensor:
        """What the perceptual net and the judge of pictures see of (B, 3, S, S)."""
        if windows is None:
            return images
        return cut_windows(images, windows, self.recipe.data.window)

    def _weight(self, name: str, step: int) -> float:
        term: Any = getattr(self.loss, name)
        return float(term.at(step))

    def _counts(self, name: str, step: int) -> bool:
        return self._weight(name, step) != 0

    def _perceptual(self, image: Tensor, clean: Tensor) -> dict[str, Tensor]:
        assert self.perceptual is not None
        with torch.no_grad():
            truth = self.perceptual(clean * 0.5 + 0.5)
        features = self.perceptual(image * 0.5 + 0.5)
        listed = self.loss.perceptual_layers
        if isinstance(self.perceptual, VGGFeatures):
            weights = list(listed) or [1.0] * len(features)
        else:
            weights = [1 / len(features)] * len(features)
        distance = losses.DISTANCES[self.loss.perceptual_distance]
        terms = {"perceptual": losses.features(features, truth, distance, weights)}
        if self.loss.style.weight:
            terms["style"] = losses.style(features, truth, distance, weights)
        return terms

    def _parts(self, image: Tensor, clean: Tensor, regions: Tensor) -> dict[str, Tensor]:
        pairs = [*zip(crop_regions(image, regions), crop_regions(clean, regions), strict=True)]
        tones = [losses.tone(restored, truth, 16) for restored, truth in pairs[:2]]
        terms = {
            "parts": torch.stack([losses.l1(restored, truth) for restored, truth in pairs]).mean()
        }
        terms["eye_tone"] = torch.stack(tones).mean()
        return terms

    def _components(
        self, image: Tensor, clean: Tensor, regions: Tensor, components: nn.ModuleDict
    ) -> dict[str, Tensor]:
        distance = losses.DISTANCES[self.loss.component_distance]
        logistics, styles = [], []
        patches = zip(crop_regions(image, regions), crop_regions(clean, regions), strict=True)
        for name, (fake, real) in zip(COMPONENTS, patches, strict=True):
            discriminator: Any = components[name]
            logits, features = discriminator.forward_with_features(fake)
            logistics.append(losses.generator_logistic(logits))
            if self.loss.component_style.weight:
                with torch.no_grad():
                    truth = discriminator.forward_with_features(real)[1]
                styles.append(losses.style(features, truth, distance, self.loss.component_layers))
        terms = {"component": torch.stack(logistics).sum()}
        if styles:
            terms["component_style"] = torch.stack(styles).sum()
        return terms

    # ------------------------------------------------------ its discriminators

    def discriminator(
        self, discriminator: nn.Module, fake: Tensor, real: Tensor
    ) -> dict[str, Tensor]:
        """What the discriminator of whole pictures minimizes: the sum of these terms.

        Args:
            discriminator: that of whole pictures.
            fake: (B, 3, S, S), restored; no gradient goes to them.
            real: likewise, clean.
        """
        settings = self.recipe.discriminator
        loss = losses.discriminator_hinge
        if settings.loss == "logistic":
            loss = losses.discriminator_logistic
        return {"discriminator": loss(discriminator(real), discriminator(fake.detach()))}

    def penalty(self, step: int, discriminator: nn.Module, real: Tensor) -> Tensor | None:
        """The R1 penalty of this step, if it has one; in float32, before its weight."""
        settings = self.recipe.discriminator
        if not settings.r1 or step % settings.r1_every:
            return None
        return losses.r1_penalty(discriminator, real)

    @property
    def penalty_weight(self) -> float:
        """Of a penalty, which counts for all the steps without one as well."""
        return self.recipe.discriminator.r1 * self.recipe.discriminator.r1_every

    def component_discriminators(
        self, components: nn.ModuleDict, fake: Tensor, real: Tensor, regions: Tensor
    ) -> dict[str, Tensor]:
        """What the discriminators of eyes and mouth minimize: the sum of these terms."""
        patches = zip(
            COMPONENTS,
            crop_regions(fake.detach(), regions),
            crop_regions(real, regions),
            strict=True,
        )
        return {
            f"discriminator_{name}": losses.discriminator_logistic(
                components[name](real_patch), components[name](fake_patch)
            )
            for name, fake_patch, real_patch in patches
        }
