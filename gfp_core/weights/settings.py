"""What a user can set about weights, by environment variables or in a file.

=====================  ================  =======================================================
variable               in the file       meaning
=====================  ================  =======================================================
GFP_WEIGHTS_DIR        folders           folders with weights; downloads go to the first
GFP_HUB_REPO           hub_repo          repository on the Hub with converted files, asked first
GFP_NO_DOWNLOAD        downloads         1 (in the file: false) forbids downloads
GFP_COMMERCIAL_ONLY    commercial_only   1 hides weights not known to allow commercial use
GFP_CATALOGUE                            the file itself, else ``weights.toml`` in `config_folder`
=====================  ================  =======================================================

The file holds a table ``[settings]`` and, if wanted, rows for the catalogue.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import WeightsError
from .catalogue import check_repo, read_toml

_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Settings:
    """What a user has set."""

    folders: tuple[Path, ...]
    """Folders searched for weights, in order; downloads go to the first that can be written."""
    hub_repo: str = ""
    """Repository OWNER/NAME on the Hub that holds converted files; empty for none."""
    downloads: bool = True
    """Whether anything may be downloaded."""
    commercial_only: bool = False
    """Whether weights not known to allow commercial use are hidden."""
    catalogue_file: Path | None = None
    """The user's file with further rows for the catalogue."""

    @classmethod
    def load(
        cls,
        folders: Sequence[str | os.PathLike[str]] = (),
        *,
        downloads: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Read the settings: what is given here comes before the environment, this before the file.

        Args:
            folders: further folders, searched first (ComfyUI's model folders, say).
            downloads: False forbids downloads, whatever else says.
            environ: the environment; by default that of the process.

        Raises:
            WeightsError: the file or a variable is wrong; says which.
        """
        env = os.environ if environ is None else environ
        named = env.get("GFP_CATALOGUE")
        file = Path(named) if named else config_folder(env) / "weights.toml"
        there = file.is_file() or bool(named)  # a file that was named must be there
        content = _file_settings(file) if there else {}
        listed = [Path(part) for part in env.get("GFP_WEIGHTS_DIR", "").split(os.pathsep) if part]
        if not listed:
            listed = [Path(part).expanduser() for part in content.get("folders", [])]
        searched = [*map(Path, folders), *listed, cache_folder(env) / "weights"]
        repo = env.get("GFP_HUB_REPO", content.get("hub_repo", ""))
        forbidden = _switch(env, "GFP_NO_DOWNLOAD", not content.get("downloads", True))
        return cls(
            folders=tuple(dict.fromkeys(searched)),
            hub_repo=check_repo("GFP_HUB_REPO", repo) if repo else "",
            downloads=downloads and not forbidden,
            commercial_only=_switch(
                env, "GFP_COMMERCIAL_ONLY", content.get("commercial_only", False)
            ),
            catalogue_file=file if there else None,
        )


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where this package keeps what it can fetch again, by the custom of the platform."""
    return _platform_folder(
        os.environ if environ is None else environ,
        ("LOCALAPPDATA", "AppData/Local", "Library/Caches", "XDG_CACHE_HOME", ".cache"),
    )


def config_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where a user's own settings for this package are, by the custom of the platform."""
    return _platform_folder(
        os.environ if environ is None else environ,
        ("APPDATA", "AppData/Roaming", "Library/Preferences", "XDG_CONFIG_HOME", ".config"),
    )


def _platform_folder(env: Mapping[str, str], names: tuple[str, str, str, str, str]) -> Path:
    windows, windows_default, mac, xdg, xdg_default = names
    if sys.platform == "win32":
        base = Path(env.get(windows) or Path.home() / windows_default)
    elif sys.platform == "darwin" and not env.get(xdg):
        base = Path.home() / mac
    else:
        base = Path(env.get(xdg) or Path.home() / xdg_default)
    return base / "gfp"


def _file_settings(file: Path) -> dict[str, Any]:
    table = read_toml(file).get("settings", {})
    kinds = {"folders": list, "hub_repo": str, "downloads": bool, "commercial_only": bool}
    if not isinstance(table, dict):
        raise WeightsError(f"{file}: settings begin with a line [settings]")
    for key, value in table.items():
        if key not in kinds:
            raise WeightsError(f"{file}: unknown setting {key!r}; there are {', '.join(kinds)}")
        if not isinstance(value, kinds[key]):
            raise WeightsError(f"{file}: setting {key!r} cannot be {value!r}")
    if not all(isinstance(folder, str) for folder in table.get("folders", [])):
        raise WeightsError(f"{file}: setting 'folders' must be a list of paths")
    return table


def _switch(env: Mapping[str, str], name: str, default: bool) -> bool:
    value = env.get(name)
    if value is None:
        return default
    if value.casefold() not in _YES + _NO:
        raise WeightsError(f"the variable {name} must be 1 or 0, not {value!r}")
    return value.casefold() in _YES
