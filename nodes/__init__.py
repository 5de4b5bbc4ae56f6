"""The pack's graph nodes: thin, one file a step, over `gfp_core`."""

from comfy_api.latest import ComfyExtension, io

from . import host
from .color_enhance import GFPColorEnhance
from .crops import GFPCropsFromFaces, GFPFacesFromCrops
from .detect_faces import GFPDetectFaces
from .load import GFPLoadDetector, GFPLoadRestorer
from .paste_back import GFPPasteBack
from .restore_faces import GFPRestoreFaces
from .restore_photo import GFPRestorePhoto

NODES: list[type[io.ComfyNode]] = [
    GFPRestorePhoto,
    GFPLoadRestorer,
    GFPLoadDetector,
    GFPDetectFaces,
    GFPRestoreFaces,
    GFPColorEnhance,
    GFPPasteBack,
    GFPCropsFromFaces,
    GFPFacesFromCrops,
]


class GFPExtension(ComfyExtension):
    """What ComfyUI asks for when it loads the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """The pack's nodes."""
        host.register_folders()
        return NODES
