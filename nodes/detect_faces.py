"""GFPDetectFaces: the faces of an image, in order, and those of them that were chosen."""

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..gfp_core.detect import DEFAULT_SCORE
from ..gfp_core.faces import Faces
from ..gfp_core.options import RestoreOptions, parse_selection
from ..gfp_core.paste import face_mask
from ..gfp_core.pipeline import Extra, FaceRestorer
from ..gfp_core.select import rank, sort
from . import host, inputs


class GFPDetectFaces(io.ComfyNode):
    """Finds faces, numbers them and hands on those that were chosen."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs of the node."""
        return host.schema(
            node_id="GFPDetectFaces",
            display_name="Detect Faces (GFP)",
            category="GFP",
            description="Finds the faces of an image or of each frame of a batch, shows them "
            "numbered, and hands on those you choose: click them in the preview.",
            search_aliases=["face detection", "face crop", "align faces", "face picker"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="One image or a batch of frames, RGB or RGBA."),
                inputs.Detector.Input("detector", tooltip="From Load Face Detector (GFP)."),
                *inputs.detection(),
                *inputs.choosing(),
                host.advanced(
                    io.Int.Input(
                        "crop_size",
                        default=512,
                        min=64,
                        max=2048,
                        step=64,
                        tooltip="Side of the aligned crops in pixels. A restorer of another size "
                        "cuts its own from the image.",
                    )
                ),
                *inputs.choosing_more(),
            ],
            outputs=[
                inputs.FacesType.Output(
                    display_name="faces", tooltip="The chosen faces, tied to their frames."
                ),
                io.Image.Output(
                    display_name="crops",
                    tooltip="The chosen faces cut out and aligned; one black picture if there is "
                    "none.",
                ),
                inputs.BoundingBox.Output(
                    display_name="boxes",
                    tooltip="The chosen faces' boxes, a list for each frame: x, y, width, height, "
                    "label, score.",
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="An ellipse about each chosen face, by frame.",
                ),
                io.Int.Output(display_name="count", tooltip="How many faces were chosen."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        rotations: Any = None,
        order: Any = None,
        which: Any = None,
    ) -> bool | str:
        """Refuse choices that are none before anything runs."""
        return inputs.check(cls, rotations=rotations, order=order, which=which)

    @classmethod
    def execute(
        cls,
        image: Tensor,
        detector: host.Managed[Any],
        score: float = DEFAULT_SCORE,
        min_size: int = 0,
        max_size: int = 0,
        rotations: str = inputs.UPRIGHT,
        order: Any = "largest",
        which: str = "all",
        crop_size: int = 512,
        max_sharpness: float = 1.0,
        video: bool = False,
        region: Tensor | None = None,
        people: Tensor | None = None,
        embedder: host.Managed[Any] | None = None,
    ) -> io.NodeOutput:
        """Detect in (B, H, W, C) float RGB(A) in [0, 1]; the image given is not changed."""
        frames = host.to_frames(image)
        find = detector.ready()
        if people is not None and embedder is None:
            raise ValueError(inputs.NEEDS_EMBEDDER)
        options = RestoreOptions.of(
            **inputs.detection_options(score, min_size, max_size, rotations),
            order=order,
            select=which,
            max_sharpness=max_sharpness if max_sharpness < 1 else None,
            auto_strength=False,  # measured where faces are pasted
            video=video,
        )
        finder = FaceRestorer(
            detector=find, embedder=None if embedder is None else embedder.ready()
        )
        extra = Extra(region=region, people=host.people(people, embedder, find))
        found = finder.detect(frames, options, extra=extra, size=crop_size, progress=host.Bar())
        chosen = finder.select(frames, found, options, size=crop_size)
        found = sort(found, order)
        return io.NodeOutput(
            inputs.FacesOfImage(chosen, frames),
            host.crops_to_image(chosen, chosen.crops),
            _boxes(chosen),
            host.to_mask(face_mask(chosen)),
            len(chosen),
            ui={"gfp_faces": _shown(frames, found, which)},
        )


def _boxes(faces: Faces) -> list[list[dict[str, Any]]]:
    """The core's form of boxes: a list for each frame, also for those without a face."""
    frames: list[list[dict[str, Any]]] = [[] for _ in faces.frame_sizes]
    for face in faces.faces:
        box = {"x": face.box[0], "y": face.box[1], "width": face.width, "height": face.height}
        frames[face.frame].append({**box, "label": "face", "score": face.score})
    return frames


def _shown(frames: Tensor, found: Faces, which: str) -> list[dict[str, Any]]:
    """What the page's face picker needs of the first frames."""
    wanted = parse_selection(which)
    shown = [
        {"frame": index, "height": height, "width": width, "image": image, "faces": []}
        for index, ((height, width), image) in enumerate(
            zip(found.frame_sizes, host.save_previews(frames), strict=False)
        )
    ]
    for face, number in zip(found.faces, rank(found), strict=True):
        if face.frame < len(shown):
            shown[face.frame]["faces"].append(
                {
                    "number": number,
                    "box": [float(edge) for edge in face.box],
                    "landmarks": face.landmarks.tolist(),
                    "score": float(face.score),
                    "chosen": number in wanted,
                }
            )
    return shown
