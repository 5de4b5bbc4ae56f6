"""The loaders of restorer, detector, parser and embedder: networks from their weights."""

from typing import Any

from comfy_api.latest import io

from . import host, inputs


class GFPLoadRestorer(io.ComfyNode):
    """Loads the network that restores faces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPLoadRestorer",
            display_name="Load Face Restorer (GFP)",
            category="GFP",
            description="Loads a face restorer: from the catalogue, downloaded and checked when it "
            "is not there yet, or one of your own files.",
            search_aliases=["gfpgan", "codeformer", "restoreformer", "gpen", "face restore model"],
            inputs=[inputs.restorer_choice(), inputs.precision(), inputs.device()],
            outputs=[
                inputs.Restorer.Output(
                    display_name="restorer",
                    tooltip="For the restoring nodes; kept in ComfyUI's memory management.",
                )
            ],
        )

    @classmethod
    def validate_inputs(
        cls, model: Any = None, precision: Any = None, device: Any = None
    ) -> bool | str:
        """Refuse choices that are none before anything runs."""
        return inputs.check(cls, model=model, precision=precision, device=device)

    @classmethod
    def fingerprint_inputs(cls, model: str, **_: Any) -> str:
        """Load again when the user's file was replaced."""
        return host.fingerprint("restorer", model)

    @classmethod
    def execute(cls, model: str, precision: Any = "auto", device: Any = "auto") -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(host.load_restorer(model, precision, device))


class GFPLoadDetector(io.ComfyNode):
    """Loads the network that finds faces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPLoadDetector",
            display_name="Load Face Detector (GFP)",
            category="GFP",
            description="Loads a face detector, downloaded and checked when it is not there yet.",
            search_aliases=["retinaface", "yunet", "face detection model"],
            inputs=[inputs.model_choice("detector", inputs.DETECTOR), inputs.device()],
            outputs=[
                inputs.Detector.Output(
                    display_name="detector",
                    tooltip="For the detecting nodes; kept in ComfyUI's memory management.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, model: Any = None, device: Any = None) -> bool | str:
        """Refuse choices that are none before anything runs."""
        return inputs.check(cls, model=model, device=device)

    @classmethod
    def execute(cls, model: str, device: Any = "auto") -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(host.load_detector(model, device))


class GFPLoadParser(io.ComfyNode):
    """Loads the network that tells the parts of a face apart."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPLoadParser",
            display_name="Load Face Parser (GFP)",
            category="GFP",
            description="Loads a face parser, downloaded and checked when it is not there yet. "
            "With it, masks follow the parts of a face and leave what stands before it.",
            search_aliases=["bisenet", "parsenet", "face parsing model"],
            inputs=[inputs.model_choice("parser", "bisenet"), inputs.device()],
            outputs=[
                inputs.Parser.Output(
                    display_name="parser",
                    tooltip="For masks; kept in ComfyUI's memory management.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, model: Any = None, device: Any = None) -> bool | str:
        """Refuse choices that are none before anything runs."""
        return inputs.check(cls, model=model, device=device)

    @classmethod
    def execute(cls, model: str, device: Any = "auto") -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(host.load_parsing(model, device))


class GFPLoadEmbedder(io.ComfyNode):
    """Loads the network that tells who is who."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPLoadEmbedder",
            display_name="Load Face Embedder (GFP)",
            category="GFP",
            description="Loads a face embedder, downloaded and checked when it is not there yet: "
            "to choose the faces of certain people, and to guard identities.",
            search_aliases=["face recognition model", "face descriptor"],
            inputs=[inputs.model_choice("embedder", "face-descriptor"), inputs.device()],
            outputs=[
                inputs.Embedder.Output(
                    display_name="embedder",
                    tooltip="For choosing people and the identity guard; kept in ComfyUI's memory "
                    "management.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, model: Any = None, device: Any = None) -> bool | str:
        """Refuse choices that are none before anything runs."""
        return inputs.check(cls, model=model, device=device)

    @classmethod
    def execute(cls, model: str, device: Any = "auto") -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(host.load_embedding(model, device))
