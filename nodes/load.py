"""The loaders of restorer, detector, parser and embedder: networks from their weights."""

from typing import Any, ClassVar

from comfy_api.latest import io

from ..gfp_core.weights.catalogue import Role
from . import inputs, sockets
from .comfy import models
from .comfy.node import Node, schema

ENGINE_TOOLTIP = (
    "What runs a RetinaFace. auto: PyTorch; onnxruntime: for cards that PyTorch does not know. "
    "Other detectors run on the CPU."
)


class GFPLoadRestorer(Node):
    """Loads the network that restores faces."""

    MODELS: ClassVar[dict[str, Role]] = {"model": "restorer"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPLoadRestorer",
            display_name="Load Face Restorer (GFP)",
            category="GFP",
            description="Loads a face restorer: from the catalogue, downloaded and checked when it "
            "is not there yet, or one of your own files.",
            search_aliases=["gfpgan", "codeformer", "restoreformer", "gpen", "face restore model"],
            inputs=[
                *inputs.widgets("model", required=["model"]),
                inputs.runtime("precision"),
                inputs.device(),
                inputs.runtime("engine"),
                inputs.runtime("provider"),
            ],
            outputs=[
                sockets.Restorer.Output(
                    display_name="restorer",
                    tooltip="For the restoring nodes; kept in ComfyUI's memory management.",
                )
            ],
        )

    @classmethod
    def run(cls, *, model: str, device: Any, **runtime: Any) -> io.NodeOutput:
        """Load the restorer."""
        return io.NodeOutput(models.load_restorer(model, policy=device, **runtime))


class GFPLoadDetector(Node):
    """Loads the network that finds faces."""

    MODELS: ClassVar[dict[str, Role]] = {"model": "detector"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPLoadDetector",
            display_name="Load Face Detector (GFP)",
            category="GFP",
            description="Loads a face detector, downloaded and checked when it is not there yet.",
            search_aliases=["retinaface", "yunet", "face detection model"],
            inputs=[
                inputs.model_choice("detector", inputs.DETECTOR),
                inputs.device(),
                inputs.runtime("engine", choices=("auto", "onnxruntime"), help=ENGINE_TOOLTIP),
                inputs.runtime("provider"),
            ],
            outputs=[
                sockets.Detector.Output(
                    display_name="detector",
                    tooltip="For the detecting nodes; kept in ComfyUI's memory management.",
                )
            ],
        )

    @classmethod
    def run(cls, *, model: str, device: Any, **runtime: Any) -> io.NodeOutput:
        """Load the detector."""
        return io.NodeOutput(models.load_face_detector(model, device, **runtime))


class GFPLoadParser(Node):
    """Loads the network that tells the parts of a face apart."""

    MODELS: ClassVar[dict[str, Role]] = {"model": "parser"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPLoadParser",
            display_name="Load Face Parser (GFP)",
            category="GFP",
            description="Loads a face parser, downloaded and checked when it is not there yet. "
            "With it, masks follow the parts of a face and leave what stands before it.",
            search_aliases=["bisenet", "parsenet", "face parsing model"],
            inputs=[inputs.model_choice("parser", "bisenet"), inputs.device()],
            outputs=[
                sockets.Parser.Output(
                    display_name="parser",
                    tooltip="For masks; kept in ComfyUI's memory management.",
                )
            ],
        )

    @classmethod
    def run(cls, *, model: str, device: Any) -> io.NodeOutput:
        """Load the parser."""
        return io.NodeOutput(models.load_face_parser(model, device))


class GFPLoadEmbedder(Node):
    """Loads the network that tells who is who."""

    MODELS: ClassVar[dict[str, Role]] = {"model": "embedder"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPLoadEmbedder",
            display_name="Load Face Embedder (GFP)",
            category="GFP",
            description="Loads a face embedder, downloaded and checked when it is not there yet: "
            "to choose the faces of certain people, and to guard identities.",
            search_aliases=["face recognition model", "face descriptor"],
            inputs=[inputs.model_choice("embedder", "face-descriptor"), inputs.device()],
            outputs=[
                sockets.Embedder.Output(
                    display_name="embedder",
                    tooltip="For choosing people and the identity guard; kept in ComfyUI's memory "
                    "management.",
                )
            ],
        )

    @classmethod
    def run(cls, *, model: str, device: Any) -> io.NodeOutput:
        """Load the embedder."""
        return io.NodeOutput(models.load_face_embedder(model, device))
