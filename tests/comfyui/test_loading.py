"""ComfyUI loads the pack."""

import re
from typing import Any

COMPLAINT = "IMPORT FAILED|Cannot import|Error while calling comfy_entrypoint|not callable|did not"


def test_log_has_no_complaint_about_the_pack(comfyui: Any) -> None:
    lines = [line for line in comfyui.log().splitlines() if "gfp_face_restoration" in line]
    assert lines, "the log lists the pack among those loaded"
    assert not [line for line in lines if re.search(COMPLAINT, line)]


def test_nodes_are_known_to_the_server(comfyui: Any) -> None:
    ours = {name for name in comfyui.object_info() if name.startswith("GFP")}
    assert "GFPRestorePhoto" in ours


def test_restores_a_photograph(comfyui: Any) -> None:
    from skimage import data, io

    io.imsave(comfyui.base / "input" / "astronaut.png", data.astronaut())
    photo = {"class_type": "LoadImage", "inputs": {"image": "astronaut.png"}}
    restored = {"image": ["1", 0], "model": "lite", "strength": 1.0, "upscale": 1.0}
    save = {"images": ["2", 0], "filename_prefix": "loading"}
    outputs = comfyui.queue(
        {
            "1": photo,
            "2": {"class_type": "GFPRestorePhoto", "inputs": restored},
            "3": {"class_type": "SaveImage", "inputs": save},
        }
    )
    saved = io.imread(comfyui.base / "output" / outputs["3"]["images"][0]["filename"])
    assert saved.shape == data.astronaut().shape
    assert (saved != data.astronaut()).any()
