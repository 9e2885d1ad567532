"""What a viewer of the feed has received: the parts of the dashboard's document, and the timeline's newest lines."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from deploy.dashboard.feed import Update

KEPT_LINES = 800


@dataclass(slots=True)
class ShownParts:
    """``parts``: by the keys of `deploy.dashboard.document`. ``lines``: of the timeline, oldest first."""

    parts: dict[str, Any] = field(default_factory=dict)
    lines: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    def take(self, update: Update) -> None:
        """Add what an update brings; one of everything replaces all that was there."""
        data = json.loads(update.data)
        if update.name == "everything":
            self.parts.clear()
            self.lines.clear()
        for key, part in data["parts"].items():
            if part is None:
                self.parts.pop(key, None)
            else:
                self.parts[key] = part
        self.lines.extend(data["events"])

    def named(self, kind: str) -> Iterator[tuple[str, Any]]:
        """(name, part) of every part of a kind, such as ``node``, sorted by name."""
        before = f"{kind}/"
        for key in sorted(key for key in self.parts if key.startswith(before)):
            yield key.removeprefix(before), self.parts[key]

    @property
    def overview(self) -> dict[str, Any]:
        """The part of that name; empty before the first update."""
        found: dict[str, Any] = self.parts.get("overview", {})
        return found
