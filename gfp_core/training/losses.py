"""The terms that the papers train with, each a function of tensors, with its equation.

GFP-GAN is Wang et al. 2021, RestoreFormer Wang et al. 2022, pose-varied Hu et al. 2023. A loss is a
mean over all numbers of the batch where the papers write a norm, as in their released code, so that
the weights of the recipes mean the same at every size. Pictures are (B, 3, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Two tensors of one shape to a scalar."""


def l1(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean absolute difference: GFP-GAN eq. 5, RestoreFormer eq. 9, pose-varied eq. 14."""
    return (restored.float() - clean.float()).abs().mean()


def squared(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean squared difference: the squared norms of RestoreFormer eq. 9 to 12."""
    return (restored.float() - clean.float()).square().mean()


def euclidean(restored: Tensor, clean: Tensor) -> Tensor:
    """Root of the mean squared difference of each sample, mean over samples: pose-varied eq. 14.

    The paper writes the norm itself; divided by the root of the number of values it does not
    depend on the layer's size.
    """
    difference = (restored.float() - clean.float()).flatten(1)
    return (difference.square().mean(dim=1) + 1e-12).sqrt().mean()


DISTANCES: dict[str, Distance] = {"l1": l1, "squared": squared, "euclidean": euclidean}
"""By the names that recipes use."""


def pyramid(heads: Sequence[Tensor], clean: Tensor) -> Tensor:
    """L1 of the picture at each scale of the network, mean over scales: GFP-GAN section 3.2.

    The clean picture is shrunk by averaging.

    Args:
        heads: (B, 3, h, h) each.
        clean: (B, 3, H, H).
    """
    sides = [(head.shape[2], head.shape[3]) for head in heads]
    targets = [F.adaptive_avg_pool2d(clean, side) for side in sides]
    return torch.stack([*map(l1, heads, targets)]).mean()


def features(
    restored: Sequence[Tensor],
    clean: Sequence[Tensor],
    distance: Distance = l1,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Weighted sum over layers of the distance of their features.

    The perceptual loss, GFP-GAN eq. 5 (``l1``) and RestoreFormer eq. 9 (``squared``), and the
    feature matching of the pose-varied paper, eq. 14 (``euclidean``).

    Args:
        restored: features of the restored pictures, a tensor a layer.
        clean: features of the clean ones; no gradient goes to them.
        distance: of one layer.
        weights: one a layer; by default 1.
    """
    weights = [1.0] * len(restored) if weights is None else weights
    parts = [
        weight * distance(a, b.detach())
        for a, b, weight in zip(restored, clean, weights, strict=True)
    ]
    return torch.stack(parts).sum()


def gram(x: Tensor) -> Tensor:
    """Gram matrices of feature maps, over the number of values: (B, C, H, W) -> (B, C, C).

    In float32: sums over many places overflow in half precision.
    """
    flat = x.float().flatten(2)
    with torch.autocast(x.device.type, enabled=False):
        return flat @ flat.transpose(1, 2) / (x.shape[1] * flat.shape[2])


def style(
    restored: Sequence[Tensor],
    clean: Sequence[Tensor],
    distance: Distance = l1,
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Distance of Gram matrices, weighted sum over layers.

    The feature style loss, GFP-GAN eq. 7 (``l1``) and RestoreFormer eq. 11 (``squared``), on the
    features of a component discriminator; and the style loss of the released codes, on those of
    the perceptual net. Arguments as of `features`.
    """
    return features([*map(gram, restored)], [*map(gram, clean)], distance, weights)


def generator_logistic(fake: Tensor) -> Tensor:
    """Non-saturating logistic loss: GFP-GAN eq. 6, and, place by place, the components' eq. 7.

    Eq. 6 has the opposite sign within, -softplus(D), whose gradient fades while the discriminator
    wins; what it refers to (StyleGAN2), and the released code, is this form. Pose-varied eq. 11.

    Args:
        fake: logits of restored pictures, of any shape.
    """
    return F.softplus(-fake.float()).mean()


def discriminator_logistic(real: Tensor, fake: Tensor) -> Tensor:
    """What the logistic discriminator minimizes: cross-entropy with real 1 and fake 0."""
    return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()


def generator_hinge(fake: Tensor) -> Tensor:
    """The generator's side of the hinge loss: the released RestoreFormer's for eq. 12 and 17."""
    return -fake.float().mean()


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's side of the hinge loss, halved as in the released code."""
    return 0.5 * (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean())


def adaptive_weight(
    reconstruction: Tensor, adversarial: Tensor, last_layer: nn.Parameter
) -> Tensor:
    """How strong the adversarial loss must be to pull as hard as the reconstruction.

    The ratio of their gradients' norms at the last layer, at most 10^4 (Esser et al. 2021, eq. 7,
    which the released RestoreFormer takes). A constant to the training.

    Args:
        reconstruction: scalar; its graph is kept.
        adversarial: scalar; its graph is kept.
        last_layer: weight of the network's last convolution.
    """
    norms = [
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].float().norm()
        for loss in (reconstruction, adversarial)
    ]
    result: Tensor = (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach()
    return result


def r1_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """Half the squared gradient of the discriminator at real pictures (Mescheder et al. 2018).

    R1 = 1/2 E |grad D(x)|^2, in float32, for the squares of small gradients are lost in half
    precision.

    Args:
        discriminator: the network.
        real: (B, 3, H, W); it is not changed.
    """
    images = real.detach().float().requires_grad_(True)
    with torch.autocast(real.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(
            discriminator(images).float().sum(), images, create_graph=True
        )
    return 0.5 * gradient.square().flatten(1).sum(dim=1).mean()


def identity(restored: Tensor, clean: Tensor, distance: Distance = l1) -> Tensor:
    """Distance of face descriptors, scaled to length 1: GFP-GAN eq. 8, RestoreFormer eq. 12.

    Pose-varied eq. 15 too. The length of a descriptor says nothing of who it is, and differs
    between nets.

    Args:
        restored: (B, D) descriptors of restored faces.
        clean: of the clean ones; no gradient goes to them.
        distance: of the two.
    """
    first, second = F.normalize(restored.float(), dim=1), F.normalize(clean.float(), dim=1)
    return distance(first, second.detach())


def descriptor(restored: Sequence[Tensor], clean: Sequence[Tensor]) -> Tensor:
    """Squared distance of features whose C channels at each place are scaled to length 1.

    Args:
        restored: features of the restored faces, (B, C, h, w) a layer.
        clean: of the clean ones; no gradient goes to them.

    Returns:
        Scalar in [0, 4]: the mean over pictures, places and layers.
    """
    layers = []
    for features, target in zip(restored, clean, strict=True):
        difference = F.normalize(features.float(), dim=1, eps=1e-6) - F.normalize(
            target.detach().float(), dim=1, eps=1e-6
        )
        layers.append(difference.square().sum(dim=1).mean())
    return torch.stack(layers).mean()


def tone(restored: Tensor, clean: Tensor, side: int) -> Tensor:
    """L1 of lightness and hue of pictures without their detail.

    Hue counts four times: a brown eye that comes out gray is as dark as before.

    Args:
        restored: (B, 3, H, W) RGB.
        clean: likewise.
        side: of the pictures that are compared, by averaging, in pixels.
    """
    small = F.adaptive_avg_pool2d((restored - clean).float(), side)
    red, green, blue = small.unbind(dim=1)
    light = (red + green + blue) / 3
    hue = (red - green).abs() + (blue - (red + green) / 2).abs()
    return (light.abs() + 4 * hue / 2).mean()


def prior_match(z: Tensor, priors: Tensor) -> Tensor:
    """Features to the dictionary's entries, RestoreFormer eq. 10.

    The dictionary is fixed, so no gradient goes to it. The terms of the dictionary's own training,
    eq. 15 and 16, are the network's: `HQDictionary.forward_with_losses`.

    Args:
        z: (B, C, h, w), the features Z_d.
        priors: the same shape, the nearest entries Z_p.
    """
    return squared(z, priors.detach())
