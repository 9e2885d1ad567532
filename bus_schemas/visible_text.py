"""Text from the bus as people may see it: what would command a terminal, or forge a line, is shown as its number."""

from __future__ import annotations

import logging
import re
from typing import Any, TypeVar

from pydantic import BaseModel

T = TypeVar("T")

_BEYOND_ASCII = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""Deletion, C1 controls, marks and overrides of direction, line separators, halves of characters."""
_HIDDEN = re.compile(f"[\x00-\x1f{_BEYOND_ASCII}]")
_HIDDEN_IN_JSON = re.compile(f"[{_BEYOND_ASCII}]")


def visible(text: str) -> str:
    """``text`` in one line, with ``\\x1b`` for an escape character, and likewise for all that has no shape."""
    return _HIDDEN.sub(lambda found: _number(found[0]), text) if _HIDDEN.search(text) else text


def visible_json(text: str) -> str:
    """The same JSON, with its own escapes for what has no shape; writers of JSON escape only those within ASCII."""
    return _HIDDEN_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def visible_parts(value: T) -> T:
    """A message, or a part of one, with all of its texts as `visible` shows them; the same one if they are already."""
    return value if isinstance(value, BaseModel) and _has_nothing_hidden(value) else _shown(value)


def _has_nothing_hidden(message: BaseModel) -> bool:
    """Whether the message's JSON, which is written several times faster than its parts are visited, has no escape and
    nothing without a shape. False also where only the parts can tell."""
    try:
        text = message.model_dump_json(warnings=False)
    except ValueError:
        return False  # Half of a character.
    # Within ASCII only deletion has no shape, which is found many times faster than a set of characters.
    has_shape = "\x7f" not in text if text.isascii() else not _HIDDEN_IN_JSON.search(text)
    return "\\" not in text and has_shape


def _shown(value: T) -> T:
    shown: Any = value
    match value:
        case str():
            shown = visible(value)
        case BaseModel():
            changed = {name: new for name, old in value.__dict__.items() if (new := _shown(old)) is not old}
            shown = value.model_copy(update=changed) if changed else value
        case dict():
            items = {_shown(key): _shown(inner) for key, inner in value.items()}
            same = all(key in value and value[key] is inner for key, inner in items.items())
            shown = value if same and len(items) == len(value) else items
        case tuple():
            parts = tuple(_shown(inner) for inner in value)
            shown = value if all(new is old for new, old in zip(parts, value, strict=True)) else parts
    return shown  # type: ignore[no-any-return]


class VisibleFormatter(logging.Formatter):
    """Plain text logs: a record stays one line, above its traceback if it has one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The record's line."""
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        """The traceback, line by line."""
        return "\n".join(map(visible, super().formatException(ei).split("\n")))


def visible_handler(layout: str) -> logging.Handler:
    """A handler that writes text logs to standard error; ``layout`` as in `logging.Formatter`."""
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter(layout))
    return handler


def _number(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
