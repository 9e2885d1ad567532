"""What happened in a chaos run, and the checker: nothing acknowledged is lost, nothing is done twice, one leader."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import next_raw, sequence_of, stored


@dataclass
class History:
    """Noted as it happens, by those who took part."""

    acknowledged: list[tuple[str, str, int]] = field(default_factory=list)
    """(subject, incarnation, id) of each decision that the server confirmed to a planner as stored."""
    carried: dict[str, list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    """(incarnation, id) that each consumer's handler was given, in order."""


@dataclass(frozen=True)
class Record:
    """A stored message."""

    sequence: int
    subject: str
    message: v1.Message
    fence: int


async def read_all(bus: Bus, wildcard: str) -> list[Record]:
    """A whole stream, in order."""
    records, after = [], 0
    while page := await next_raw(bus, wildcard, after):
        for raw in page:
            found = stored(raw)
            assert found is not None, f"unreadable message {sequence_of(raw)}"
            fence = int((raw.headers or {}).get("Nats-Expected-Last-Subject-Sequence", "0"))
            records.append(Record(found.sequence, found.subject, found.message, fence))
        after = sequence_of(page[-1])
    return records


async def check(bus: Bus, history: History) -> None:
    """Raises AssertionError where a promise of the bus was broken."""
    decisions = await read_all(bus, bus.subjects.all_decisions())
    _acknowledged_are_stored(history, decisions)
    _ids_have_no_gaps(decisions)
    _epochs_never_go_back(decisions)
    _nothing_twice(history, decisions)


def _acknowledged_are_stored(history: History, decisions: list[Record]) -> None:
    stored_ids = {(r.subject, r.message.incarnation, r.message.decision_id) for r in decisions}  # type: ignore[attr-defined]
    lost = set(history.acknowledged) - stored_ids
    assert not lost, f"acknowledged decisions are lost: {sorted(lost)[:5]}"


def _ids_have_no_gaps(decisions: list[Record]) -> None:
    by_subject: dict[tuple[str, str], list[int]] = defaultdict(list)
    for record in decisions:
        by_subject[record.subject, record.message.incarnation].append(record.message.decision_id)  # type: ignore[attr-defined]
    for (subject, _), ids in by_subject.items():
        assert ids == list(range(ids[0], ids[0] + len(ids))), f"ids of {subject} are {ids}"


def _epochs_never_go_back(decisions: list[Record]) -> None:
    """In the order of the stream the epoch never falls, so the decisions of two leaders never alternate."""
    for before, after in pairwise(decisions):
        assert after.message.epoch >= before.message.epoch, f"epoch falls at {after.sequence} on {after.subject}"  # type: ignore[attr-defined]
        assert after.fence >= before.fence, f"the fence falls at {after.sequence} on {after.subject}"


def _nothing_twice(history: History, decisions: list[Record]) -> None:
    known = {(r.message.incarnation, r.message.decision_id) for r in decisions}  # type: ignore[attr-defined]
    for who, done in history.carried.items():
        assert len(set(done)) == len(done), (
            f"{who} carried out twice: {[one for one in done if done.count(one) > 1][:5]}"
        )
        for (_, first), (_, second) in pairwise(done):
            assert second > first, f"{who} went back from {first} to {second}"
        assert set(done) <= known, f"{who} carried out what was never decided"
