"""Where a page begins in an address."""

from __future__ import annotations

import re

PATH = re.compile("(/[A-Za-z0-9._~-]+)*", re.ASCII)


def path_of(prefix: str) -> str:
    """``site/watts/`` as ``/site/watts``; empty where the page begins at the root. Raises ValueError."""
    path = "/" + prefix.strip("/") if prefix.strip("/") else ""
    if not PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError(f"{prefix!r} is not a path of letters, digits and -._~, such as /site/watts")
    return path
