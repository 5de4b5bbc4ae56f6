"""Many pictures on many machines: a batch callable for every engine, Ray Data, ComfyUI servers."""

from .batch import FaceRestorerBatch

__all__ = ["FaceRestorerBatch"]
