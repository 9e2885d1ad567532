"""Collections of the Kubernetes API, read page by page: all pods of a large cluster are too much for one answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

PAGE = 500
"""Objects in one answer."""


class Reader(Protocol):
    """What reads objects."""

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One object or list. Raises ApiError."""
        ...


async def pages(
    reader: Reader, path: str, query: Mapping[str, str] | None = None, size: int = PAGE
) -> AsyncIterator[dict[str, Any]]:
    """The lists that make up a collection, the last one with the version to watch from. Raises ApiError."""
    asked = {**(query or {}), "limit": str(size)}
    while True:
        page = await reader.get(path, asked)
        yield page
        following = page.get("metadata", {}).get("continue")
        if not following:
            return
        asked["continue"] = following
