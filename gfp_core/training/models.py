"""The networks of a recipe: the one that is trained, and its discriminators."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.discriminators import ComponentDiscriminator, StyleGAN2Discriminator
from ..networks.gfpgan import GFPGAN, GFPGANBilinear
from ..networks.gfpgan_state import clean_to_bilinear
from ..networks.hq_dictionary import HQDictionary
from ..networks.patch_discriminator import PatchDiscriminator
from ..networks.pose_varied import PoseVaried
from ..networks.prior import to_basicsr
from ..networks.registry import ARCHITECTURES
from ..networks.restoreformer import Codec, RestoreFormer
from ..networks.state import describe_difference
from ..weights.loading import load_network, load_state_dict
from . import losses
from .recipes import Recipe
from .regions import COMPONENTS


@dataclass
class Restored:
    """What a network made of a batch, for the losses."""

    image: Tensor
    """(B, 3, S, S) float32 RGB, about [-1, 1]."""
    pyramid: list[Tensor] = field(default_factory=list)
    """Pictures of smaller scales, where the network gives them."""
    terms: dict[str, Tensor] = field(default_factory=dict)
    """Losses that are the network's own, by the names of `recipes.Losses`."""


def build_generator(recipe: Recipe) -> nn.Module:
    """The network that is trained, with what it starts from.

    Raises:
        ValueError: the recipe's model cannot be built, or its start does not fit; says why.
    """
    rows = {row.name: row.network for row in ARCHITECTURES}
    if recipe.model.name not in rows:
        raise ValueError(f"no model {recipe.model.name}; there are {', '.join(rows)}")
    kind: Any = rows[recipe.model.name]
    try:
        net: nn.Module = kind(**recipe.model.args)
    except TypeError as error:
        raise ValueError(f"model.args: {error}") from error
    if recipe.model.start:
        start_from(net, recipe.model.start)
    elif recipe.model.frozen:
        raise ValueError(
            "the recipe freezes a part of the model, but gives no file to start from, so that part "
            "would stay random: set model.start to the file of the prior, or model.frozen to []"
        )
    prefixes = recipe.model.frozen
    for name, parameter in net.named_parameters():
        if prefixes and name.startswith(prefixes):
            parameter.requires_grad_(False)
    size = getattr(net, "out_size", recipe.data.size)
    if not isinstance(net, Codec) and size != recipe.data.size:
        raise ValueError(
            f"the model takes {size} px and data.size is {recipe.data.size}: set data.size, or "
            "model.args.out_size"
        )
    return net


def start_from(net: nn.Module, path: str) -> None:
    """Load what a network's training begins with, in place.

    A checkpoint of the same network, or of its prior: for GFP-GAN a StyleGAN2 generator (bare, in
    rosinality's, BasicSR's or NVIDIA's naming, or as another GFP-GAN's ``stylegan_decoder``), for
    the pose-varied network GPEN or such a generator, for RestoreFormer its dictionary. For the
    bilinear form of GFP-GAN its clean one, as released, is the same network.

    Raises:
        ValueError: the file cannot be read or fits none of these; says why.
    """
    state, metadata = load_state_dict(path)
    if isinstance(net, RestoreFormer) and metadata.get("architecture") == "HQDictionary":
        dictionary = load_network(path, "HQDictionary")
        assert isinstance(dictionary, Codec)
        net.start_from(dictionary)
        return
    if not describe_difference(net.state_dict(), state):
        net.load_state_dict(state)
    elif isinstance(net, PoseVaried):
        net.load_prior(state)
    elif isinstance(net, GFPGANBilinear) and "conv_body_first.weight" in state:
        bilinear = clean_to_bilinear(state, net.state_dict())
        difference = describe_difference(net.state_dict(), bilinear)
        if difference:
            raise ValueError(f"{path} is not the clean form of this network: {difference}")
        net.load_state_dict(bilinear)
    elif isinstance(net, GFPGAN):
        state = to_basicsr(state) or state
        module, prefix = net.stylegan_decoder, "stylegan_decoder."
        own = module.state_dict()
        bare = {key.removeprefix(prefix): value for key, value in state.items()}
        prior = {key: bare[key] for key in own if key in bare}
        difference = describe_difference(own, prior)
        if difference:
            raise ValueError(f"{path} is not the prior of this {type(net).__name__}: {difference}")
        module.load_state_dict(prior)
    else:
        difference = describe_difference(net.state_dict(), state)
        raise ValueError(f"{path} does not fit {type(net).__name__}: {difference}")


def build_discriminator(recipe: Recipe) -> StyleGAN2Discriminator | PatchDiscriminator | None:
    """The discriminator of whole pictures, if the recipe has one.

    Raises:
        ValueError: it cannot be built, or its start does not fit; says why.
    """
    if not recipe.loss.adversarial.weight:
        return None
    settings = recipe.discriminator
    net: StyleGAN2Discriminator | PatchDiscriminator
    try:
        if settings.kind == "patch":
            net = PatchDiscriminator(**settings.args)
        else:
            net = StyleGAN2Discriminator(**{"size": recipe.data.size, **settings.args})
    except TypeError as error:
        raise ValueError(f"discriminator.args: {error}") from error
    if settings.start:
        state, _ = load_state_dict(settings.start)
        difference = describe_difference(net.state_dict(), state)
        if difference:
            raise ValueError(f"{settings.start} is not this discriminator: {difference}")
        net.load_state_dict(state)
    if settings.frozen and isinstance(net, StyleGAN2Discriminator):
        net.freeze_first(settings.frozen)
    return net


def build_components(recipe: Recipe) -> nn.ModuleDict | None:
    """The discriminators of eyes and mouth, by name, if the recipe has them."""
    if not (recipe.loss.component.weight or recipe.loss.component_style.weight):
        return None
    width = recipe.loss.component_width
    return nn.ModuleDict({name: ComponentDiscriminator(width) for name in COMPONENTS})


def parameter_groups(net: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameters that are trained, with their learning rates, for an optimizer."""
    if not recipe.optimizer.groups:
        parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
        return [{"params": parameters, "lr": recipe.optimizer.lr}]
    if not isinstance(net, PoseVaried):
        raise ValueError(f"optimizer.groups: {type(net).__name__} has no parameter groups")
    groups = net.parameter_groups()
    if set(groups) != set(recipe.optimizer.groups):
        raise ValueError(f"optimizer.groups must name {', '.join(groups)}")
    return [
        {"params": [parameter for parameter in parameters if parameter.requires_grad], "lr": rate}
        for name, parameters in groups.items()
        for rate in [float(recipe.optimizer.groups[name])]
    ]


def last_layer(net: nn.Module) -> nn.Parameter:
    """Weight of the network's last convolution, where `losses.adaptive_weight` looks.

    Raises:
        ValueError: the network is none whose last layer this is known of.
    """
    if not isinstance(net, Codec):
        raise ValueError(f"discriminator.adaptive: not for {type(net).__name__}")
    weight = net.decoder.conv_out.weight
    assert isinstance(weight, nn.Parameter)
    return weight


def restore(net: nn.Module, x: Tensor, noise: torch.Generator | None) -> Restored:
    """Run the network for training.

    Args:
        net: from `build_generator`.
        x: (B, 3, S, S) RGB in [-1, 1].
        noise: of a GFP-GAN whose noise is to be fresh; else None.
    """
    terms: dict[str, Tensor] = {}
    pyramid: list[Tensor] = []
    if isinstance(net, HQDictionary):
        output = net.forward_with_losses(x)
        image = output.image
        terms = {"codebook": output.codebook_loss, "commitment": output.commitment_loss}
    elif isinstance(net, RestoreFormer):
        image, z, priors = net.forward_with_priors(x)
        terms = {"prior": losses.prior_match(z, priors.values)}
    elif isinstance(net, GFPGAN):
        image, pyramid = net.forward_with_pyramid(x, noise)
    else:
        forward: Any = getattr(net, "forward_with_pyramid", None)
        image, pyramid = (net(x), []) if forward is None else forward(x)
    return Restored(image.float(), pyramid, terms)
