"""Old name of `gfp_core.io.images`, kept for one version."""

import logging

from .io.images import (
    MAX_PIXELS,
    SUFFIXES,
    ImageError,
    Picture,
    copy_image,
    from_frames,
    read_image,
    to_frames,
    write_image,
)

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "ImageError",
    "Picture",
    "copy_image",
    "from_frames",
    "read_image",
    "to_frames",
    "write_image",
]

logging.getLogger(__name__).warning(
    "gfp_core.images is deprecated and goes with the next version: import gfp_core.io.images"
)
