"""GFPRestoreVideo: video in, video with restored faces out, in bounded memory."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import folder_paths
from comfy_api.latest import InputImpl, io

from ..gfp_core.clips import ClipSummary, restore_clip
from ..gfp_core.io.video import ENCODERS, SUFFIXES, Clip
from ..gfp_core.options import ClipOptions
from ..gfp_core.pipeline import Extra, FaceRestorer
from ..gfp_core.weights.catalogue import Role
from . import inputs, sockets
from .comfy import models, pictures
from .comfy.models import Managed
from .comfy.node import Choice, Node, advanced, schema
from .comfy.progress import Bar
from .restore_options import NEEDS_EMBEDDER
from .restore_photo import NEEDS_PARSER

SAME = "as the video"
CODECS = [name for name, encoder in ENCODERS.items() if "gif" not in encoder.containers]
FREE_QUALITY = -1.0
"""Number of the input crf that stands for the codec's default."""


class GFPRestoreVideo(Node):
    """Restores the faces of a video frame by frame, from file to file."""

    MODELS: ClassVar[dict[str, Role]] = {"model": "restorer", "detector_model": "detector"}

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Declare the inputs and outputs of the node."""
        return schema(
            node_id="GFPRestoreVideo",
            display_name="Face Restore Video (GFP)",
            category="GFP",
            description="Restores the faces of a video, steadied from frame to frame. It goes from "
            "file to file, so memory does not grow with the video's length; sound, frame rate and "
            "time stamps are kept. Put it between Load Video and Save Video.",
            search_aliases=["video face", "face restoration video", "video faces", "deflicker"],
            inputs=[
                io.Video.Input("video", tooltip="From Load Video."),
                *inputs.widgets(
                    *inputs.PHOTO, required=["model", "strength"], shown=["upscale", "select"]
                ),
                Choice(
                    "codec",
                    options=[SAME, *CODECS],
                    default=SAME,
                    optional=True,
                    tooltip="Codec of the result; ffv1 is lossless. prores makes a MOV, ffv1 an "
                    "MKV, the others an MP4.",
                ),
                advanced(
                    io.Float.Input(
                        "crf",
                        default=FREE_QUALITY,
                        min=FREE_QUALITY,
                        max=63.0,
                        step=1.0,
                        tooltip="Constant quality of the encoder, the lower the better. -1: one "
                        "that looks like the video at about its size.",
                    )
                ),
                sockets.Restorer.Input(
                    "restorer",
                    optional=True,
                    tooltip="A loaded restorer, in place of the one named by model.",
                ),
                sockets.Detector.Input(
                    "detector",
                    optional=True,
                    tooltip="A loaded detector, in place of the one named by detector_model.",
                ),
                sockets.Options.Input(
                    "options",
                    optional=True,
                    tooltip="From Face Restore Options (GFP): masks by parts, blending, certain "
                    "people, frames of a video, the identity guard.",
                ),
                inputs.preset(),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The video with restored faces."),
                io.String.Output(display_name="report", tooltip="What was done, in a sentence."),
            ],
        )

    @classmethod
    def run(
        cls,
        *,
        video: Any,
        codec: str,
        crf: float,
        restorer: Managed[Any] | None,
        detector: Managed[Any] | None,
        options: sockets.FurtherOptions | None,
        preset: str,
        **values: Any,
    ) -> io.NodeOutput:
        """Restore a video into a file in ComfyUI's folder for temporary files."""
        further = sockets.FurtherOptions() if options is None else options
        base = inputs.from_preset(preset).replace(**further.options.flat(changed=True))
        chosen = inputs.to_options(values, base)
        if chosen.mask.needs_parser and further.parser is None:
            raise ValueError(NEEDS_PARSER)
        if chosen.identity.identity_limit and further.embedder is None:
            raise ValueError(NEEDS_EMBEDDER)
        restorer = restorer or models.last_used("restorer", values["model"])
        detector = detector or models.last_used("detector", values["detector_model"])
        memory = models.working_memory(restorer, chosen.runtime.batch_size)
        together = models.join(restorer, detector, further.parser, further.embedder, memory=memory)
        bar = Bar()
        with source_file(video) as (source, start, end):
            clip = ClipOptions.of(
                codec=None if codec == SAME else codec,
                crf=None if crf < 0 else crf,
                start=start,
                end=end,
            )
            target = temporary_file(_ending(source, codec))
            summary = _restore(together, source, target, chosen, clip, further, bar)
        return io.NodeOutput(InputImpl.VideoFromFile(str(target)), f"{summary}.")


def _restore(
    together: FaceRestorer,
    source: Path,
    target: Path,
    options: Any,
    clip: ClipOptions,
    further: sockets.FurtherOptions,
    bar: Bar,
) -> ClipSummary:
    people, reference = further.people, further.reference
    size = (0, 0)
    if further.frame_mask is not None or further.region is not None:
        with Clip(source) as opened:
            height, width = next(opened.frames()).to_tensor().shape[2:]
        size = (height, width)
    extra = Extra(
        frame_mask=pictures.from_mask(further.frame_mask, size),
        region=pictures.from_mask(further.region, size),
        people=None if people is None else together.describe([*pictures.to_frames(people)]),
        reference=None if reference is None else pictures.to_frames(reference),
    )
    try:
        return restore_clip(
            together,
            source,
            target,
            options,
            clip,
            extra=extra,
            progress=bar,
            preview=bar.preview,
            resume=False,
        )
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def temporary_file(ending: str) -> Path:
    """Return a new path in ComfyUI's folder for temporary files."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"GFP_{secrets.token_hex(8)}{ending}"


@contextmanager
def source_file(video: Any) -> Iterator[tuple[Path, float, float | None]]:
    """Give the file of a VIDEO, and the part of it that counts, in seconds.

    A video that is no file (made of images by Create Video, or read from memory) is written into
    a temporary one first, which goes again; what it writes is its part already.
    """
    start, end, stream = 0.0, None, None
    if isinstance(video, InputImpl.VideoFromFile):
        stream = video.get_stream_source()
        if hasattr(type(video), "get_active_trim_window"):  # newer versions of ComfyUI
            start, duration = video.get_active_trim_window()
            end = start + duration if duration else None
    if isinstance(stream, str) and Path(stream).suffix.lower() in SUFFIXES:
        yield Path(stream), start, end
        return
    path = temporary_file(".mp4")
    try:
        if isinstance(stream, str):
            try:
                path.symlink_to(Path(stream).resolve())
            except OSError:  # Windows asks for a privilege
                shutil.copyfile(stream, path)
        elif stream is not None:
            path.write_bytes(stream.getbuffer())
        else:
            video.save_to(str(path))
        yield path, start, end
    finally:
        path.unlink(missing_ok=True)


def _ending(source: Path, codec: str) -> str:
    """Return the ending of the result: that of the source, where Save Video copes with it."""
    ending = source.suffix.lower()
    ending = ".mp4" if ending in (".avi", ".gif") else ending
    containers = (SUFFIXES[ending],) if codec == SAME else ENCODERS[codec].containers
    if SUFFIXES[ending] in containers:
        return ending
    return next(each for each, name in SUFFIXES.items() if name == containers[0])
