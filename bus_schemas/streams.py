"""The streams, as values. What each keeps, for how long, and why. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bus_schemas.subjects import Subjects

DAY_S = 86_400.0
MAX_CONSUMERS = 20_000
"""A server caps a stream at 1,000 consumers unless a number is said; -1 means 1,000 too."""

DECISIONS = "WATTSCALE_DECISIONS"
ACKS = "WATTSCALE_ACKS"
CONTROL = "WATTSCALE_CONTROL"
TELEMETRY = "WATTSCALE_TELEMETRY"
DEADLETTER = "WATTSCALE_DEADLETTER"
KV_BUCKET = "wattscale"


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One stream. ``per_subject`` 0: no limit. ``fenced``: atomic batches and per-message TTL are allowed."""

    name: str
    subjects: tuple[str, ...]
    file: bool
    max_age_s: float
    per_subject: int
    sealed_history: bool = False
    """Deny delete and purge: what was decided stays readable."""
    fenced: bool = False
    dedupe_s: float = 120.0
    max_consumers: int = MAX_CONSUMERS


def stream_specs(subjects: Subjects) -> tuple[StreamSpec, ...]:
    """The five streams of one prefix."""
    decided = (subjects.all_of("decision"), subjects.all_of("lease"))
    return (
        StreamSpec(DECISIONS, decided, True, 7 * DAY_S, 1024, sealed_history=True, fenced=True),
        StreamSpec(ACKS, (subjects.all_of("ack"),), True, 7 * DAY_S, 1024, sealed_history=True),
        StreamSpec(CONTROL, (subjects.all_of("control"),), True, 30 * DAY_S, 0),
        StreamSpec(TELEMETRY, (subjects.all_of("telemetry"),), False, 3600.0, 240),
        StreamSpec(DEADLETTER, (subjects.all_of("deadletter"),), True, 30 * DAY_S, 0),
    )


_BY_KIND = {
    "decision": DECISIONS,
    "lease": DECISIONS,
    "ack": ACKS,
    "control": CONTROL,
    "telemetry": TELEMETRY,
    "deadletter": DEADLETTER,
}


def stream_of(subjects: Subjects, subject: str) -> str:
    """The stream that stores ``subject`` (or a wildcard of one kind). Raises ValueError for a foreign subject."""
    start = subjects.root + "."
    kind = subject[len(start) :].split(".", 1)[0] if subject.startswith(start) else ""
    if kind not in _BY_KIND:
        raise ValueError(f"subject {subject!r} belongs to no stream of prefix {subjects.prefix!r}")
    return _BY_KIND[kind]
