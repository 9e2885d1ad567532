"""The previous release's contract, from the document that it published: what its readers accept, and what they see."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema

RELEASE = Path(__file__).parent / "release"
Body = dict[str, Any]


@functools.cache
def schemas() -> Body:
    """The schemas of all messages and parts, by name."""
    document = json.loads((RELEASE / "asyncapi.json").read_text(encoding="utf-8"))
    found: Body = document["components"]["schemas"]
    return found


@functools.cache
def _names() -> dict[str, str]:
    """The schema of each message by its type on the wire."""
    typed = ((name, schema.get("properties", {}).get("type", {})) for name, schema in schemas().items())
    return {str(wire["const"]): name for name, wire in typed if "const" in wire}


def knows(wire_type: str) -> bool:
    """Whether the previous release has a message of this type."""
    return wire_type in _names()


def refuse_unreadable(body: Body) -> None:
    """Raises ValidationError for a message that a reader of the previous release refuses."""
    root = {"$ref": f"#/components/schemas/{_names()[body['type']]}", "components": {"schemas": schemas()}}
    checker = jsonschema.FormatChecker()
    jsonschema.Draft202012Validator(root, format_checker=checker).validate(body)


def as_read_before(body: Body) -> Body:
    """A message as a reader of the previous release sees it: without the fields that it does not know, at any depth."""
    seen: Body = _seen(body, {"$ref": f"#/components/schemas/{_names()[body['type']]}"})
    return seen


def _seen(value: Any, schema: Body) -> Any:
    if "$ref" in schema:
        return _seen(value, schemas()[schema["$ref"].rpartition("/")[2]])
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1 and value is not None:
        return _seen(value, options[0])
    if isinstance(value, list) and "items" in schema:
        return [_seen(one, schema["items"]) for one in value]
    if isinstance(value, dict) and "properties" in schema:
        known = schema["properties"]
        return {name: _seen(one, known[name]) for name, one in value.items() if name in known}
    if isinstance(value, dict) and isinstance(schema.get("additionalProperties"), dict):
        return {name: _seen(one, schema["additionalProperties"]) for name, one in value.items()}
    return value


@functools.cache
def recorded() -> tuple[Body, ...]:
    """What the previous release sent, oldest first: ``subject``, ``headers`` and ``body``."""
    return tuple(json.loads(line) for line in (RELEASE / "messages.jsonl").read_text(encoding="utf-8").splitlines())
