"""Fast forms of the networks: made from the published form to run, equal to it up to rounding."""

from __future__ import annotations

from torch import nn

from .codeformer import CodeFormer
from .fast_gfpgan import FastGFPGAN, FastLite
from .fast_vqgan import with_fast_blocks
from .gfpgan import GFPGANBilinear, GFPGANClean
from .gfpgan_state import bilinear_to_clean
from .lite import GFPGANLite
from .restoreformer import RestoreFormer, RestoreFormerPlusPlus


def fast_form(net: nn.Module) -> nn.Module:
    """The fast form of a network, for inference, or the network itself if it has none.

    It holds a copy of the weights as they are now, where it lays them out anew: what becomes of
    the network later does not reach it, and one who needs no training lets the network go.

    Args:
        net: a network in its published form, on any device.

    Returns:
        A module with the same ``forward``, less what serves training; equal up to rounding.
    """
    if type(net) is GFPGANBilinear:
        net = GFPGANClean.from_state_dict(bilinear_to_clean(net.state_dict()))
    if type(net) is GFPGANClean:
        return FastGFPGAN(net)
    if type(net) is GFPGANLite:
        return FastLite(net)
    if type(net) in (RestoreFormer, RestoreFormerPlusPlus, CodeFormer):
        return with_fast_blocks(net)
    return net
