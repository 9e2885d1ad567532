"""Text from the bus as people may see it: what would command a terminal, or forge a line, is shown as its number."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AwareDatetime, BaseModel

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
    """Whether all of its texts are shown as they are. False also where only the parts can tell."""
    texts: list[str] = []
    if (fields := _text_fields(type(message))) is not None and _gathered(message, fields, texts):
        text = "".join(texts)
        return text.isprintable() if text.isascii() else not _HIDDEN.search(text)
    # Its JSON, which is written several times faster than its parts are visited: no escape, nothing without a shape.
    try:
        text = message.model_dump_json(warnings=False)
    except ValueError:
        return False  # Half of a character.
    return "\\" not in text and not _HIDDEN_IN_JSON.search(text)


Fields = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of a model's fields that hold a text or None, and of those that hold a tuple of texts or models, or None."""


@cache
def _text_fields(model: type[BaseModel]) -> Fields | None:
    """None for a model that may hold texts in another way, such as in a mapping."""
    texts, tuples = [], []
    for name, field in model.model_fields.items():
        inner = {_bare(one) for one in _members(field.annotation)} - {NoneType}
        if inner == {str}:
            texts.append(name)
        elif len(inner) == 1 and get_origin(only := next(iter(inner))) is tuple and _is_list(get_args(only)):
            tuples.append(name)
        elif not all(_holds_no_text(one) for one in inner):
            return None
    return tuple(texts), tuple(tuples)


def _members(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_list(members: tuple[Any, ...]) -> bool:
    """Whether these are the members of a tuple of any length, all texts or all models whose text fields are known."""
    inner = _bare(members[0])
    is_model = isinstance(inner, type) and issubclass(inner, BaseModel)
    return members[1:] == (...,) and (inner is str or (is_model and _text_fields(inner) is not None))


def _holds_no_text(annotation: Any) -> bool:
    # The contract fixes the texts of enumerations and literals.
    return get_origin(annotation) is Literal or (
        isinstance(annotation, type) and issubclass(annotation, (bool, int, float, datetime, AwareDatetime, Enum))
    )


def _gathered(model: BaseModel, fields: Fields, texts: list[str]) -> bool:
    """Add the model's texts; False where a value is not of its field's type: nothing checks copies with changes."""
    values, (names, tuples) = model.__dict__, fields
    for name in names:
        if (value := values[name]) is not None:
            if type(value) is not str:
                return False
            texts.append(value)
    for name in tuples:
        for one in values[name] or ():
            if type(one) is str:
                texts.append(one)
            elif (
                not isinstance(one, BaseModel)
                or (inner := _text_fields(type(one))) is None
                or not _gathered(one, inner, texts)
            ):
                return False
    return True


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
