"""What makes a result beside the picture: options, networks, other pictures; and a result's record.

Whoever restores files (`cli`, `scale`) tells by it which results are finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .options import RECORD_TABLE, RestoreOptions, options_of

if TYPE_CHECKING:
    from .weights.catalogue import Role
    from .weights.store import Weights


@dataclass(frozen=True)
class Recipe:
    """What makes a result, beside the picture."""

    options: str
    """Fingerprint of the options, and of the other pictures that came with them."""
    networks: str
    """Fingerprint of the weights."""


def recipe_of(
    options: RestoreOptions, networks: Mapping[str, str], others: Mapping[str, Iterable[Path]]
) -> Recipe:
    """The recipe of a run.

    Args:
        options: of the restoration; `FileOptions` for clips.
        networks: names and SHA-256 of the weights.
        others: the other pictures, by what they are for.

    Raises:
        OSError: one of them cannot be read.
    """
    digests = {name: [sha256_of(path) for path in paths] for name, paths in others.items()}
    named = {name: values for name, values in digests.items() if values}
    return Recipe(_digest([options.fingerprint(), named]), _digest(dict(networks)))


def networks_of(options: RestoreOptions, *, people: bool) -> dict[Role, str]:
    """The names or files of the networks that options need, by what they are for."""
    networks = options.networks
    compares = people or options.identity.identity_limit is not None
    names: dict[Role, str | None] = {
        "restorer": networks.model,
        "detector": networks.detector,
        "parser": networks.parser or ("bisenet" if options.mask.needs_parser else None),
        "embedder": networks.embedder if compares else None,
        "upscaler": networks.background_model,
    }
    return {role: name for role, name in names.items() if name is not None}


def network_hashes(options: RestoreOptions, weights: Weights, *, people: bool) -> dict[str, str]:
    """Names of what the networks are for, and the SHA-256 of their weights.

    Raises:
        WeightsError: there are no such weights, or they are missing and must not be downloaded.
    """
    from .weights import WeightsError
    from .weights.resolve import refer

    hashes: dict[str, str] = {}
    for role, name in networks_of(options, people=people).items():
        reference = refer(name, role, weights)
        entry, path = reference.entry, reference.path
        if entry is not None:
            path = weights.locate(entry.name)
            if path is None and role != "detector" and not weights.settings.downloads:
                raise WeightsError(
                    f"{entry.name} is not on this machine, and downloads are forbidden: allow "
                    f"them, or run `gfp weights get {entry.name}`.\n{weights.by_hand(entry)}"
                )
        if entry is not None and entry.sha256:
            hashes[role] = entry.sha256
        elif path is not None and path.is_file():
            hashes[role] = weights.hashes.sha256_of(path)
        if role == "restorer" and entry is None and path is not None:
            embedder = embedder_of_person(path, options, weights)
            if embedder is not None and embedder[0].is_file():
                hashes["embedder"] = weights.hashes.sha256_of(embedder[0])
    return hashes


def embedder_of_person(
    file: Path, options: RestoreOptions, weights: Weights
) -> tuple[Path, bool] | None:
    """Find what tells a person from others, where a restorer's file is a person's.

    Args:
        file: of the restorer.
        options: of the restoration.
        weights: where the embedder is looked for; it is not fetched for this, see
            `FaceRestorer.load_for`.

    Returns:
        Its file (or folder), and whether a name of the catalogue finds it; None where nobody is to
        be told apart, or it is not on this machine.

    Raises:
        WeightsError: there is no such embedder.
    """
    from .weights import WeightsError
    from .weights.files import is_graph
    from .weights.loading import read_difference
    from .weights.resolve import refer

    if not options.person.can_compare or is_graph(file):
        return None
    try:
        difference = read_difference(file)
    except WeightsError:  # whoever loads the file will say so
        return None
    if difference is None or difference.embedding is None:
        return None
    reference = refer(options.networks.embedder, "embedder", weights)
    if reference.entry is None:
        return None if reference.path is None else (reference.path, False)
    path = weights.locate(reference.entry.name)
    return None if path is None else (path, True)


@dataclass(frozen=True)
class Record:
    """Makes the record of a result: its options, and what made it."""

    options: RestoreOptions
    recipe: Recipe
    networks: Mapping[str, str]
    others: tuple[str, ...] = field(default=())
    """What the other pictures were for."""

    def text(self, source: Path) -> str:
        """The record of a picture's result, for `io.images.write_image`.

        Raises:
            OSError: the picture cannot be read.
        """
        return self.text_of(sha256_of(source))

    def text_of(self, source_sha256: str) -> str:
        """The record of the result of a picture whose file has this SHA-256."""
        # How it was computed is of this machine alone.
        runtime = {
            each.name: each.default
            for each in options_of(type(self.options))
            if not each.changes_result
        }
        table = {
            "program": f"gfp {__version__}",
            "model": self.options.networks.model,
            "model_sha256": self.networks.get("restorer", ""),
            "source_sha256": source_sha256,
            **asdict(self.recipe),
        }
        if self.others:
            table["with"] = ", ".join(self.others)
        rows = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()]
        options = self.options.replace(**runtime).to_toml()
        return "\n".join([options, f"[{RECORD_TABLE}]", *rows, ""])


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file."""
    from .weights.hashing import sha256_of

    return sha256_of(path)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
