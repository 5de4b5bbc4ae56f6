"""Putting converted weights into a repository on the Hub, with their terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import WeightsError
from .catalogue import Entry, check_repo
from .hashing import sha256_of
from .store import Weights


@dataclass(frozen=True)
class Published:
    """A file to be published."""

    entry: Entry
    path: Path
    size: int
    sha256: str


def prepare(weights: Weights, names: Sequence[str]) -> list[Published]:
    """Convert what is not converted yet, and hash it.

    Raises:
        WeightsError: weights are not on this machine, or have no form to be published.
    """
    files = []
    for entry in map(weights.find, names):
        if entry.sha256 is None:
            raise WeightsError(f"{entry.name}: the hash of {entry.file} is not known to be right")
        path = weights.convert(entry.name)
        files.append(Published(entry, path, path.stat().st_size, sha256_of(path)))
    return files


def publish(files: Sequence[Published], repo: str, private: bool = False) -> str:
    """Make the repository if need be, and put the files and a model card there in one commit.

    Args:
        files: from `prepare`.
        repo: OWNER/NAME; the token in use (HF_TOKEN) must be allowed to write there.
        private: makes a new repository a private one.

    Returns:
        The commit's address.

    Raises:
        WeightsError: the Hub does not take them; says why.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.utils import HfHubHTTPError

    api = HfApi(endpoint=constants.ENDPOINT)
    contents: list[tuple[str, str | bytes]] = [
        ("README.md", card(files).encode()),
        ("catalogue.toml", catalogue_rows(files).encode()),
        *((one.entry.usable_file, str(one.path)) for one in files),
    ]
    try:
        api.create_repo(check_repo("repo", repo), private=private, exist_ok=True)
        commit = api.create_commit(
            repo,
            [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                for name, content in contents
            ],
            commit_message="Add " + ", ".join(one.entry.name for one in files),
        )
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(f"{repo}: the Hub does not take the files: {error}") from error
    return str(commit.commit_url)


def card(files: Sequence[Published]) -> str:
    """The model card, in Markdown: what the files are, from where, and on what terms."""
    head = (
        "---\nlicense: other\nlibrary_name: gfp-face-restoration\ntags: [face-restoration]\n---\n"
    )
    intro = (
        "# Weights for face restoration, as safetensors\n\n"
        "Converted from the files named below, tensor for tensor, by `gfp weights convert`; "
        "nothing was trained or changed. Each file keeps the terms of its source.\n\n"
    )
    parts = []
    for one in files:
        entry = one.entry
        parts.append(
            f"## {entry.title or entry.name}\n\n"
            f"- File: `{entry.usable_file}`, {one.size} bytes, SHA-256 `{one.sha256}`\n"
            f"- Architecture: {entry.architecture}\n"
            f"- Made from: `{entry.file}`, SHA-256 `{entry.sha256}`, {entry.origin}\n"
            f"- Licence: {entry.licence}\n"
            f"- Commercial use: {entry.commercial} ({entry.reason})\n"
        )
    return head + intro + "\n".join(parts)


def catalogue_rows(files: Sequence[Published]) -> str:
    """Rows for a user's catalogue that pin the published files."""
    return "\n".join(
        f'[[weights]]\nname = "{one.entry.name}"\nconverted_size = {one.size}\n'
        f'converted_sha256 = "{one.sha256}"\n'
        for one in files
    )
