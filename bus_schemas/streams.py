"""The streams: what each holds, for how long, and how much. Pure values; `jetstream.provision` brings them about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bus_schemas.errors import BadNameError
from bus_schemas.subjects import Subjects

DAY_S = 86_400.0
FOR_EVER_S = 0.0
"""An age without a limit, in the server's words."""
MIB = 1 << 20
MAX_CONSUMERS = 20_000
"""Consumers a stream may have. Always explicit: server 2.15 caps a stream at 1,000 otherwise, and -1 means that too."""
PASSING_BYTES = 64 * MIB
"""Bound of telemetry and of dead letters. The server reserves it, so it must fit into a small one's memory."""
KV_HISTORY = 64
"""The most that the KV format allows per key."""


DECISIONS = "WATTSCALE_DECISIONS"
ACKS = "WATTSCALE_ACKS"
CONTROL = "WATTSCALE_CONTROL"
TELEMETRY = "WATTSCALE_TELEMETRY"
DEADLETTER = "WATTSCALE_DEADLETTER"
KV_BUCKET = "wattscale"
KV_STREAM = f"KV_{KV_BUCKET}"

_BY_KIND = {
    "decision": DECISIONS,
    "lease": DECISIONS,
    "ack": ACKS,
    "control": CONTROL,
    "telemetry": TELEMETRY,
    "deadletter": DEADLETTER,
}


def stream_of(subjects: Subjects, subject: str) -> str:
    """The stream that stores ``subject`` (or a wildcard of one kind). Raises BadNameError for a foreign subject."""
    start = subjects.root + "."
    kind = subject[len(start) :].split(".", 1)[0] if subject.startswith(start) else ""
    if kind not in _BY_KIND:
        raise BadNameError(f"subject {subject!r} belongs to no stream of prefix {subjects.prefix!r}")
    return _BY_KIND[kind]


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One stream as it shall be. ``config`` is the same in the server's own words."""

    name: str
    description: str
    subjects: tuple[str, ...]
    storage: str
    max_age_s: float
    max_msgs_per_subject: int = -1
    max_bytes: int = -1
    duplicate_window_s: float = 120.0
    deny_delete: bool = False
    allow_msg_ttl: bool = False
    allow_atomic: bool = False
    republish: tuple[str, str] | None = None
    sources: tuple[tuple[str, str, str], ...] = ()
    """(stream, subject there, subject here) of each source."""
    max_consumers: int = MAX_CONSUMERS
    replicas: int = 1

    def config(self) -> dict[str, Any]:
        """The body of a STREAM.CREATE request: only what this spec has an opinion on."""
        config: dict[str, Any] = {
            "name": self.name,
            "description": self.description,
            "subjects": list(self.subjects),
            "retention": "limits",
            "discard": "old",
            "storage": self.storage,
            "max_age": int(self.max_age_s * 1e9),
            "max_msgs": -1,
            "max_msgs_per_subject": self.max_msgs_per_subject,
            "max_bytes": self.max_bytes,
            "max_consumers": self.max_consumers,
            "duplicate_window": int(self.duplicate_window_s * 1e9),
            "num_replicas": self.replicas,
            "allow_direct": True,
            "deny_delete": self.deny_delete,
            "deny_purge": self.deny_delete,
            "allow_msg_ttl": self.allow_msg_ttl,
            "allow_atomic": self.allow_atomic,
        }
        if not self.subjects:
            del config["subjects"]
        if self.republish:
            config["republish"] = {"src": self.republish[0], "dest": self.republish[1]}
        if self.sources:
            config["sources"] = [
                {"name": stream, "subject_transforms": [{"src": src, "dest": dest}]}
                for stream, src, dest in self.sources
            ]
        return config


def stream_specs(
    subjects: Subjects,
    *,
    replicas: int = 1,
    max_consumers: int = MAX_CONSUMERS,
    telemetry_max_bytes: int = PASSING_BYTES,
) -> tuple[StreamSpec, ...]:
    """All streams, sources before those that read them. Two installations share a server by an account each."""
    every = subjects.everything()

    def spec(
        name: str, description: str, held: tuple[str, ...], storage: str, max_age_s: float, **more: Any
    ) -> StreamSpec:
        return StreamSpec(
            name,
            description,
            held,
            storage,
            max_age_s,
            republish=(every, subjects.stored(every)),
            max_consumers=max_consumers,
            replicas=replicas,
            **more,
        )

    truth: dict[str, Any] = {"max_msgs_per_subject": 1024, "deny_delete": True, "allow_msg_ttl": True}
    decided = (subjects.all_decisions(), subjects.all_leases())
    return (
        # A node may be silent for longer than any age. Its last decision is all that a next leader knows of the watts
        # that it may draw, and its last answer all that proves a limit.
        spec(
            DECISIONS,
            "Decisions and the leadership lease",
            decided,
            "file",
            FOR_EVER_S,
            allow_atomic=True,
            **truth,
        ),
        spec(ACKS, "What is in force", (subjects.all_acks(),), "file", FOR_EVER_S, **truth),
        # An order holds until the next: one that aged away would give its watts back when the next planner leads.
        spec(
            CONTROL,
            "What operators and grid signals say",
            (subjects.all_control(),),
            "file",
            FOR_EVER_S,
            max_msgs_per_subject=8192,
        ),
        spec(
            TELEMETRY,
            "Readings and plan records",
            (subjects.all_telemetry(),),
            "memory",
            3600.0,
            max_msgs_per_subject=240,
            max_bytes=telemetry_max_bytes,
        ),
        spec(
            DEADLETTER,
            "Messages that can not be carried out",
            (subjects.all_deadletters(),),
            "file",
            30 * DAY_S,
            max_bytes=PASSING_BYTES,
        ),
        _bucket(subjects, replicas, max_consumers),
    )


def _bucket(subjects: Subjects, replicas: int, max_consumers: int) -> StreamSpec:
    return StreamSpec(
        KV_STREAM,
        "Current decisions as a read-only KV bucket",
        (),
        "file",
        FOR_EVER_S,
        max_msgs_per_subject=KV_HISTORY,
        sources=((DECISIONS, subjects.all_decisions(), f"$KV.{KV_BUCKET}.decision.>"),),
        max_consumers=max_consumers,
        replicas=replicas,
    )
