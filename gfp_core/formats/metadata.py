"""Old name of `gfp_core.io.metadata`, kept for one version."""

from ..io.metadata import Metadata

__all__ = ["Metadata"]
