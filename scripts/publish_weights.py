"""Put converted weights into a repository on the Hub, with their terms.

    HF_TOKEN=... python -m scripts.publish_weights gfpgan-1.4 --repo me/face-weights

For whoever gives out converted files; the library only fetches them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gfp_core.weights import WeightsError
from gfp_core.weights.catalogue import Entry, check_repo
from gfp_core.weights.hashing import sha256_of
from gfp_core.weights.store import Weights


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
        *((file.entry.usable_file, str(file.path)) for file in files),
    ]
    try:
        api.create_repo(check_repo("repo", repo), private=private, exist_ok=True)
        commit = api.create_commit(
            repo,
            [
                CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
                for name, content in contents
            ],
            commit_message="Add " + ", ".join(file.entry.name for file in files),
        )
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(f"{repo}: the Hub does not take the files: {error}") from error
    return str(commit.commit_url)


def card(files: Sequence[Published]) -> str:
    """Write the model card, in Markdown: what the files are, from where, and on what terms."""
    head = (
        "---\nlicense: other\nlibrary_name: gfp-face-restoration\ntags: [face-restoration]\n---\n"
    )
    intro = (
        "# Weights for face restoration, as safetensors\n\n"
        "Converted from the files named below, tensor for tensor, by `gfp weights convert`; "
        "nothing was trained or changed. Each file keeps the terms of its source.\n\n"
    )
    parts = []
    for file in files:
        entry = file.entry
        parts.append(
            f"## {entry.title or entry.name}\n\n"
            f"- File: `{entry.usable_file}`, {file.size} bytes, SHA-256 `{file.sha256}`\n"
            f"- Architecture: {entry.architecture}\n"
            f"- Made from: `{entry.file}`, SHA-256 `{entry.sha256}`, {entry.origin}\n"
            f"- Licence: {entry.licence}\n"
            f"- Commercial use: {entry.commercial} ({entry.reason})\n"
        )
    return head + intro + "\n".join(parts)


def catalogue_rows(files: Sequence[Published]) -> str:
    """Write rows for a user's catalogue that pin the published files."""
    return "\n".join(
        f'[[weights]]\nname = "{file.entry.name}"\nconverted_size = {file.size}\n'
        f'converted_sha256 = "{file.sha256}"\n'
        for file in files
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Put converted weights on the Hub.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="as in `gfp weights list`")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="made if missing")
    parser.add_argument("--private", action="store_true", help="make it a private one")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be put there, and stop"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        files = prepare(Weights(), options.names)
        print(card(files) if options.dry_run else publish(files, options.repo, options.private))
    except WeightsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\nRows for the catalogue, so that these files are believed:\n")
    print(catalogue_rows(files))
    return 0


if __name__ == "__main__":
    sys.exit(main())
