"""ComfyUI's door to the pack. ComfyUI imports this folder as a package; nothing else does."""

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """The pack's extension; imported late, so that only ComfyUI needs ComfyUI."""
    from .nodes import GFPExtension

    return GFPExtension()
