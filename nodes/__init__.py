"""The pack's graph nodes: thin, one file a step, over `gfp_core`."""

from comfy_api.latest import ComfyExtension, io

from .restore_photo import GFPRestorePhoto


class GFPExtension(ComfyExtension):
    """What ComfyUI asks for when it loads the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The pack's nodes."""
        return [GFPRestorePhoto]
