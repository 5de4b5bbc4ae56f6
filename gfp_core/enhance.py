"""Old name of `gfp_core.color.enhance`, kept for one version."""

import logging

from .color.enhance import balance, enhance

__all__ = ["balance", "enhance"]

logging.getLogger(__name__).warning(
    "gfp_core.enhance is deprecated and goes with the next version: import gfp_core.color.enhance"
)
