"""Writes nats-server configurations from plain values.

JSON, with quoted keys and strings, is valid in the server's configuration language, so a name or path cannot break the
syntax.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_VARIABLE = re.compile(r'"(\$[A-Z][A-Z0-9_]*)"')
WIDTH = 110


def render(settings: Mapping[str, Any]) -> str:
    """The text of a configuration file, one top-level setting per line."""
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()]
    return "\n".join(lines) + "\n"


def pretty(settings: Mapping[str, Any]) -> str:
    """The text of a configuration file, indented for people. ``$NAME`` is read from the server's environment."""
    text = "\n".join(f"{name}: {_block(value, 0)}" for name, value in settings.items()) + "\n"
    return _VARIABLE.sub(r"\1", text)


def _block(value: Any, depth: int) -> str:
    line = json.dumps(value)
    if not isinstance(value, (dict, list)) or len(line) + depth * 2 < WIDTH - 20:
        return line
    inner, outer = "  " * (depth + 1), "  " * depth
    if isinstance(value, dict):
        rows = [f"{inner}{key}: {_block(one, depth + 1)}" for key, one in value.items()]
        return "{\n" + "\n".join(rows) + f"\n{outer}}}"
    rows = [f"{inner}{_block(one, depth + 1)}" for one in value]
    return "[\n" + ",\n".join(rows) + f"\n{outer}]"
