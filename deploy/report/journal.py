"""The messages that a report is made of, as they were stored, and a digest that anybody can compute again. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from bus_schemas import codec
from bus_schemas.errors import UndecodableError
from bus_schemas.v1 import Message


@dataclass(frozen=True)
class Entry:
    """One stored message. ``stored_at``: when the server stored it, by the server's clock; ``body``: its bytes."""

    stream: str
    sequence: int
    subject: str
    stored_at: datetime
    body: bytes
    made: str = ""
    """When the stream was made: its sequences begin anew then."""

    @cached_property
    def message(self) -> Message | None:
        """The decoded message; None where this version cannot decode it. It counts in the digest either way."""
        try:
            return codec.decode(self.body)
        except UndecodableError:
            return None


@dataclass(frozen=True, slots=True)
class StreamRange:
    """The messages of one stream that went into a report: sequences from ``first`` to ``last``, ``count`` in all.

    ``last`` may be the smaller one: sequences begin anew where a stream was made anew.
    """

    stream: str
    first: int
    last: int
    count: int
    sha256: str
    """SHA-256 over one line per message: sequence, subject and the SHA-256 of the body, separated by spaces."""


def ranges(entries: Iterable[Entry]) -> tuple[StreamRange, ...]:
    """What to recompute the evidence from, by stream name."""
    by_stream: dict[str, dict[tuple[str, int], Entry]] = {}
    for entry in entries:
        by_stream.setdefault(entry.stream, {})[entry.made, entry.sequence] = entry
    return tuple(_range(stream, [kept[at] for at in sorted(kept)]) for stream, kept in sorted(by_stream.items()))


def _range(stream: str, entries: Sequence[Entry]) -> StreamRange:
    whole = hashlib.sha256()
    for entry in entries:
        whole.update(f"{entry.sequence} {entry.subject} {hashlib.sha256(entry.body).hexdigest()}\n".encode())
    return StreamRange(stream, entries[0].sequence, entries[-1].sequence, len(entries), whole.hexdigest())


def digest(found: Iterable[StreamRange], in_force: Iterable[StreamRange] = ()) -> str:
    """One SHA-256 over the ranges of all streams, and of what was in force before them: what a signature signs."""
    lines = [_words(one) for one in found] + [f"before {_words(one)}" for one in in_force]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _words(one: StreamRange) -> str:
    return f"{one.stream} {one.first} {one.last} {one.count} {one.sha256}\n"


def last_of_each(entries: Iterable[Entry]) -> list[Entry]:
    """The last message of each subject, in the order of storing."""
    newest = {entry.subject: entry for entry in sorted(entries, key=_storing)}
    return sorted(newest.values(), key=_storing)


def merged(*sources: Iterable[Entry]) -> list[Entry]:
    """Each message once, whichever sources have it, in the order of storing."""
    found = {(entry.stream, entry.made, entry.sequence): entry for source in sources for entry in source}
    return sorted(found.values(), key=_storing)


def _storing(entry: Entry) -> tuple[datetime, str, int]:
    """The order of storing."""
    return entry.stored_at, entry.stream, entry.sequence
