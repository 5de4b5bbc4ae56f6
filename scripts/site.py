"""What mkdocs does to a page of docs/ on the way to the site (``hooks`` in mkdocs.yml)."""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"\]\(\.\./(?P<target>[^)\s]+)\)")
PICTURES = (".jpg", ".png")


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Turn links to files outside docs/ into links to the repository, where these are.

    Args:
        markdown: the page's text.
        config: mkdocs's configuration, which names the repository.
    """

    def replace(match: re.Match[str]) -> str:
        target = posixpath.normpath(match["target"])
        kind = "raw" if target.endswith(PICTURES) else "blob"
        return f"]({config.repo_url.rstrip('/')}/{kind}/main/{target})"

    return LINK.sub(replace, markdown)
