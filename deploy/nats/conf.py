"""Writes nats-server configurations from plain values.

JSON is valid in the server's configuration language, quoted keys and strings included, so that no name or path
can break out of its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def render(settings: Mapping[str, Any]) -> str:
    """The text of a configuration file, one top-level setting a line."""
    lines = [f"{name}: {json.dumps(value)}" for name, value in settings.items()]
    return "\n".join(lines) + "\n"
