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

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..tables import TableError, build, read_toml
from . import WeightsError
from .catalogue import check_repo

logger = logging.getLogger(__name__)

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
    strict: bool = True
    """Whether a wrong file of the user is an error at once, not when weights are asked for."""
    problem: str = ""
    """What is wrong with the settings; then only bundled weights are used."""

    @classmethod
    def load(
        cls,
        folders: Sequence[str | os.PathLike[str]] = (),
        *,
        downloads: bool = True,
        environ: Mapping[str, str] | None = None,
        strict: bool = True,
    ) -> Settings:
        """Read the settings: arguments come before the environment, this before the file.

        Args:
            folders: further folders, searched first (ComfyUI's model folders, say).
            downloads: False forbids downloads, whatever else says.
            environ: the environment; by default that of the process.
            strict: False keeps what is wrong for later, as ``problem``: for a program that must
                start all the same, and tell it when weights are asked for.

        Raises:
            WeightsError: the file or a variable is wrong (only if ``strict``); says which.
        """
        env = os.environ if environ is None else environ
        try:
            return cls._read(folders, downloads, env, strict)
        except WeightsError as error:
            if strict:
                raise
            return cls(folders=_folders(folders, [], env), downloads=False, problem=str(error))

    @classmethod
    def _read(
        cls,
        folders: Sequence[str | os.PathLike[str]],
        downloads: bool,
        env: Mapping[str, str],
        strict: bool,
    ) -> Settings:
        file = _settings_file(env)
        content = _file_settings(file) if file is not None else FileSettings()
        variable = env.get("GFP_WEIGHTS_DIR", "")
        configured = list(filter(None, variable.split(os.pathsep))) or content.folders
        configured = [os.path.expanduser(path) for path in configured]
        repo = env.get("GFP_HUB_REPO", content.hub_repo)
        forbidden = _switch(env, "GFP_NO_DOWNLOAD", not content.downloads)
        return cls(
            folders=_folders(folders, configured, env),
            hub_repo=check_repo("GFP_HUB_REPO", repo) if repo else "",
            downloads=downloads and not forbidden,
            commercial_only=_switch(env, "GFP_COMMERCIAL_ONLY", content.commercial_only),
            catalogue_file=file,
            strict=strict,
        )


@dataclass(frozen=True)
class FileSettings:
    """The table ``[settings]`` of the user's file."""

    folders: tuple[str, ...] = ()
    hub_repo: str = ""
    downloads: bool = True
    commercial_only: bool = False


def _folders(
    first: Sequence[str | os.PathLike[str]], configured: Sequence[str], env: Mapping[str, str]
) -> tuple[Path, ...]:
    cache = cache_folder(env)
    last = [] if cache is None else [cache / "weights"]
    homeless = [path for path in configured if path.startswith("~")]
    if homeless:
        logger.warning("%s: passed over, for there is no home folder", ", ".join(homeless))
    paths = [Path(path) for path in configured if path not in homeless]
    return tuple(dict.fromkeys([*map(Path, first), *paths, *last]))


def _settings_file(env: Mapping[str, str]) -> Path | None:
    """Find the user's file: the one named, which must be there, or else the usual one."""
    named = env.get("GFP_CATALOGUE")
    if named:
        return Path(named)
    folder = config_folder(env)
    file = None if folder is None else folder / "weights.toml"
    return file if file is not None and os.path.isfile(file) else None


def cache_folder(environ: Mapping[str, str] | None = None) -> Path | None:
    """Give the folder for what can be fetched again, by the custom of the platform.

    None for a user without a home folder, as in a container, unless a variable names one.
    """
    return _platform_folder(
        os.environ if environ is None else environ,
        ("LOCALAPPDATA", "AppData/Local", "Library/Caches", "XDG_CACHE_HOME", ".cache"),
    )


def config_folder(environ: Mapping[str, str] | None = None) -> Path | None:
    """Give the folder of a user's settings for this package, by the custom of the platform.

    None for a user without a home folder, unless a variable names one.
    """
    return _platform_folder(
        os.environ if environ is None else environ,
        ("APPDATA", "AppData/Roaming", "Library/Preferences", "XDG_CONFIG_HOME", ".config"),
    )


def _platform_folder(env: Mapping[str, str], names: tuple[str, str, str, str, str]) -> Path | None:
    windows, windows_default, mac, xdg, xdg_default = names
    variable, default = (
        (windows, windows_default) if sys.platform == "win32" else (xdg, xdg_default)
    )
    if env.get(variable):
        return Path(env[variable]) / "gfp"
    if sys.platform == "darwin":
        default = mac
    try:
        return Path.home() / default / "gfp"
    except RuntimeError:  # a user without an entry and without HOME
        return None


def _file_settings(file: Path) -> FileSettings:
    try:
        table = read_toml(file).get("settings", {})
        return build(FileSettings, table, "settings", noun="setting")
    except TableError as error:
        where = "" if str(file) in str(error) else f"{file}: "
        raise WeightsError(f"{where}{error}") from error


def _switch(env: Mapping[str, str], name: str, default: bool) -> bool:
    value = env.get(name)
    if value is None:
        return default
    if value.casefold() not in _YES + _NO:
        raise WeightsError(f"the variable {name} must be 1 or 0, not {value!r}")
    return value.casefold() in _YES
