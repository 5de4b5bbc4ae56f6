"""The last results of steps, so that another strength does not detect and restore anew."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import comfy.model_management
import torch
from torch import Tensor

from ...gfp_core.faces import Faces

STATELESS = "GFP_STATELESS"
"""Environment variable: 1 keeps nothing from one prompt to the next."""

Value = TypeVar("Value", bound=Faces)

_BAND = 32 * 2**20  # bytes between two looks at whether the user cancels
MAX_ENTRIES = 4
MAX_BYTES = 256 * 2**20
"""What all entries of a step may hold together; a result that is larger is not kept."""


def is_stateless() -> bool:
    """Tell whether nothing may be kept from one prompt to the next."""
    return os.environ.get(STATELESS, "").casefold() in ("1", "true", "yes", "on")


def digest(tensor: Tensor | None) -> str:
    """Return what is equal for equal tensors alone: their type, shape and bytes; "" for None."""
    if tensor is None:
        return ""
    content = tensor.detach().cpu().contiguous()
    hashed = hashlib.blake2b(repr((content.dtype, content.shape)).encode(), digest_size=16)
    for part in content.view(torch.uint8).view(-1).split(_BAND):
        comfy.model_management.throw_exception_if_processing_interrupted()
        hashed.update(part.numpy().data)
    return hashed.hexdigest()


class Memo(Generic[Value]):
    """Keeps the faces that a step gave for equal inputs, as long as the image they are of lives."""

    def __init__(self) -> None:
        self._entries: list[tuple[Hashable, weakref.ref[Tensor], Value]] = []

    def get(self, image: Tensor, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value kept under a key, or make it.

        Args:
            image: the image that the value is of, in ComfyUI's cache: with it the value goes.
            key: all that the value depends on, the image's `digest` too.
            make: makes the value.
        """
        if is_stateless():
            return make()
        for entry in self._entries:
            if entry[0] == key:
                return entry[2]
        value = make()
        self._entries.append((key, weakref.ref(image, self._forget), value))
        while len(self._entries) > MAX_ENTRIES or self._size() > MAX_BYTES:
            del self._entries[0]
        return value

    def _forget(self, image: weakref.ref[Tensor]) -> None:
        self._entries = [entry for entry in self._entries if entry[1] is not image]

    def _size(self) -> int:
        return sum(_bytes(value) for _, _, value in self._entries)


def _bytes(faces: Faces) -> int:
    tensors: list[Any] = [faces.crops, faces.restored]
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


DETECTED: Memo[Faces] = Memo()
RESTORED: Memo[Faces] = Memo()
