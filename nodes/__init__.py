"""The pack's graph nodes: thin, one file a step, over `gfp_core`."""

import logging
import sys

from comfy_api.latest import ComfyExtension, io

from . import inputs, replacements
from .color_enhance import GFPColorEnhance
from .comfy import folders
from .comfy.node import Node, add_check, prompt_handler
from .compare_restorers import GFPCompareRestorers
from .crops import GFPCropsFromFaces, GFPFacesFromCrops
from .detect_faces import GFPDetectFaces
from .face_masks import GFPFaceMasks
from .identity_guard import GFPIdentityGuard
from .learn_person import GFPLearnPerson
from .load import GFPLoadDetector, GFPLoadEmbedder, GFPLoadParser, GFPLoadRestorer
from .paste_back import GFPPasteBack
from .restore_faces import GFPRestoreFaces
from .restore_options import GFPRestoreOptions
from .restore_photo import GFPRestorePhoto
from .restore_video import GFPRestoreVideo

logger = logging.getLogger(__name__)

NODES: list[type[Node]] = [
    GFPRestorePhoto,
    GFPRestoreVideo,
    GFPRestoreOptions,
    GFPLoadRestorer,
    GFPLoadDetector,
    GFPDetectFaces,
    GFPRestoreFaces,
    GFPColorEnhance,
    GFPPasteBack,
    GFPCropsFromFaces,
    GFPFacesFromCrops,
    GFPFaceMasks,
    GFPIdentityGuard,
    GFPCompareRestorers,
    GFPLoadParser,
    GFPLoadEmbedder,
    GFPLearnPerson,
]


class GFPExtension(ComfyExtension):
    """What ComfyUI asks for when it loads the pack."""

    async def on_load(self) -> None:
        """Offer ours in place of nodes of other packs that are not installed."""
        await replacements.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the pack's nodes, ready for prompts."""
        folders.register()
        for node in NODES:
            add_check(node, inputs.wrong, inputs.texts())
        _prepare_prompts()
        return list(NODES)


def _prepare_prompts() -> None:
    """Let ComfyUI's server ask before it checks a prompt; there may be no server."""
    server = sys.modules.get("server")  # ComfyUI's, which imports it before the packs
    instance = None if server is None else vars(server.PromptServer).get("instance")
    if instance is None:
        logger.info("No server: null in a prompt is not taken for the default.")
    else:
        instance.add_on_prompt_handler(replacements.prepare_prompt)
        instance.add_on_prompt_handler(prompt_handler(NODES))
