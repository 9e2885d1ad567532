"""The contract's stored messages: decoded, taken in by the planner, and written again by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from bus_schemas import codec, v1
from tests.goldens import days, shown
from tests.goldens.source import Line

CORPUS = Path(__file__).parents[1] / "contract" / "messages" / "corpus"
PARTS = ("message", "taken-in", "written")


def _body(message: v1.Message | None) -> shown.Shown:
    """A message's JSON with sorted keys: the order of fields on the wire is not behaviour."""
    return None if message is None else json.dumps(json.loads(codec.encode(message)), sort_keys=True)


def lines() -> Iterator[Line]:
    """One line a message."""
    config = days.wire_config()
    for path in sorted(CORPUS.glob("*/*.json")):
        message = codec.decode(path.read_bytes())
        parts = (_body(message), shown.from_wire(message), _body(shown.to_wire(message, config)))
        yield Line(f"{path.parent.name}/{path.stem}", parts)
