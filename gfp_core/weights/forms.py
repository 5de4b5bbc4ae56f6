"""What a file is, by its first bytes and an archive's list of names, before anything unpacks it.

Only three forms are weights: safetensors, and PyTorch's own in its zip and its legacy form. All
else is refused with a line that names what the file really is. That comes before PyTorch sees the
file, because its older versions run TorchScript archives while they read them (CVE-2025-32434).
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import PurePosixPath
from typing import BinaryIO, Literal

from . import WeightsError
from .files import open_regular

Form = Literal["safetensors", "PyTorch (zip)", "PyTorch (legacy)"]

HEAD = 512
"""Bytes of a file's beginning that are looked at."""
# What a file may unpack to. PyTorch stores entries uncompressed, so an honest file is about as
# large as what is in it; half-precision tensors become twice as large.
_GROWTH, _ALWAYS_ALLOWED = 4, 16 * 2**20
# PyTorch's legacy magic number as a pickle, behind the pickle's protocol.
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

_ONNX = (
    "an ONNX network; restorers are read from .pth and .safetensors files alone (GPEN's are "
    "GPEN-BFR-512.pth and so on; GFPGAN-1024 is not run here), other networks in ONNX "
    "by the names of the catalogue: gfp weights list"
)
_TFLITE, _UNKNOWN = "a TensorFlow Lite network", "neither safetensors nor a PyTorch file"
_BY_START = (
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file it stands for (git lfs pull)"),
    (b"GGUF", "a GGUF file, for llama.cpp and the like; look for the .pth or .safetensors file"),
    (b"ggml", "a GGML file; look for the .pth or .safetensors file"),
    (b"\x89HDF\r\n", "an HDF5 file (Keras, h5py); look for the .pth or .safetensors file"),
    (b"\x93NUMPY", "a NumPy array; look for the .pth or .safetensors file"),
    (b"7767517\n", "an ncnn network; look for the .pth or .safetensors file"),
    (b"\x1f\x8b", "a gzip archive; unpack it and give the file inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it and give the file inside"),
    (b"Rar!", "a RAR archive; unpack it and give the file inside"),
    (b"\xfd7zXZ", "an xz archive; unpack it and give the file inside"),
    (b"BZh", "a bzip2 archive; unpack it and give the file inside"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive; unpack it and give the file inside"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"RIFF", "a WebP picture, or a sound or video"),
    (b"%PDF", "a PDF document"),
    (b"MZ", "a program for Windows"),
    (b"\x7fELF", "a program or library for Linux"),
    (b"\x80", "a bare Python pickle, which is not read because it may hold code"),
)


def identify(file: BinaryIO, name: object) -> Form:
    """Tell the form of a weight file.

    Args:
        file: opened for reading; its position is at the beginning before and after.
        name: of the file, for messages.

    Raises:
        WeightsError: the file is of no form that is read; says what it is.
        OSError: the file cannot be read.
    """
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    if not head:
        raise WeightsError(f"{name}: the file is empty")
    if head.startswith(b"PK\x03\x04"):
        _check_zip(file, name)
        return "PyTorch (zip)"
    if head[257:262] == b"ustar":
        raise WeightsError(
            f"{name}: not a checkpoint: a tar archive (a package, or PyTorch's form before 0.1.10, "
            "which can run code); ask for a safetensors file"
        )
    if head[:1] == b"\x80" and head[2:].startswith(_LEGACY_MAGIC):
        return "PyTorch (legacy)"
    if head[8:9] == b"{":
        return "safetensors"
    raise WeightsError(f"{name}: not a checkpoint: {describe(head)}")


def check_graph(path: str | os.PathLike[str]) -> None:
    """Refuse a file that stands in the place of an ONNX or TensorFlow Lite network.

    Raises:
        WeightsError: the file cannot be read, or is known to be something else; says what it is.
    """
    try:
        with open_regular(path) as file:
            head = file.read(HEAD)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    what = describe(head) if head else "the file is empty"
    if what not in (_ONNX, _TFLITE, _UNKNOWN):
        raise WeightsError(f"{path}: no ONNX or TensorFlow Lite network: {what}")


def describe(head: bytes) -> str:
    """Say what a file is that is no weight file, by its first bytes."""
    if not head.strip(b"\0"):
        return "zeros, as a download that was never finished leaves them"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, what in _BY_START:
        if head.startswith(start) or text.startswith(start):
            return what
    if text.startswith(b"<"):
        return "a web page, perhaps saved in place of a download that failed"
    if head[4:8] in (b"TFL3", b"ftyp"):
        return _TFLITE if head[4:8] == b"TFL3" else "a video or HEIF picture"
    if head[:1] == b"\x08" and len(head) > 2 and 1 <= head[1] <= 32 and head[2] in b"\x12\x1a\x3a":
        return _ONNX
    quote = _quote(text)
    if text[:1] in (b"{", b"["):
        return f"JSON, perhaps a server's answer in place of a download: {quote}"
    if quote:
        return f"a text: {quote}"
    return _UNKNOWN


def size_limit(size: int) -> int:
    """Limit the bytes that the content of a file of ``size`` bytes may have."""
    return max(_GROWTH * size, _ALWAYS_ALLOWED)


def _check_zip(file: BinaryIO, name: object) -> None:
    """Let nothing pass but what `torch.save` writes: one folder with one pickle and its tensors.

    Raises:
        WeightsError: the archive is another, damaged, or unpacks to far more than its size.
    """
    size = file.seek(0, 2)
    try:
        # The index is at the very end, so that all readers see the same one.
        file.seek(-22, 2)
        end = file.read()
        if not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":
            raise EOFError
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise WeightsError(f"{name}: damaged or truncated: the archive has no index") from error
    finally:
        file.seek(0)
    names = [entry.filename for entry in entries]
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > size_limit(size):
        raise WeightsError(
            f"{name}: {size} bytes that unpack to {unpacked}: no checkpoint is packed like this, "
            "and it is not read"
        )
    what = _zip_kind(names)
    if what:
        raise WeightsError(f"{name}: not a state dict: {what}")


def _zip_kind(names: list[str]) -> str:
    """Say what an archive is; empty if it has the form of a state dict."""
    inside = [PurePosixPath(name).parts[1:] for name in names]
    tops = {PurePosixPath(name).parts[:1] for name in names}
    records = {"/".join(parts) for parts in inside}
    programs = ("constants.pkl", "code/", "ts_code/", ".data/extern_modules", "extra/")
    if any(record.startswith(programs) for record in records) or any(
        name.split("/")[-1] == "constants.pkl" for name in names
    ):
        return "a TorchScript program or package, which is code; ask for a file of tensors only"
    if len(tops) == 1 and "data.pkl" in records and len(set(names)) == len(names):
        return ""
    weights = [name for name in names if re.search(r"\.(pth|pt|ckpt|safetensors|onnx)$", name)]
    if weights:
        return f"a zip archive with {_clean(weights[0])} in it; unpack it and give that file"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)"
    listed = ", ".join(map(_clean, names[:3])) or "nothing"
    return f"a zip archive of another kind (with {listed}), not PyTorch's"


def _clean(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:80])


def _quote(text: bytes) -> str:
    """Quote the beginning of a text in one line; empty for what is no text."""
    line = text[:120].split(b"\n")[0].decode("utf-8", "ignore").strip()
    return line[:80] if len(line) >= 8 and line.isprintable() else ""
