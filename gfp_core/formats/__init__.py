"""Old name of `gfp_core.io`, kept for one version."""

import logging

from ..io import metadata, png, tiff

__all__ = ["metadata", "png", "tiff"]

logging.getLogger(__name__).warning(
    "gfp_core.formats is deprecated and goes with the next version: import gfp_core.io"
)
