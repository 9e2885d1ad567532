"""The streams: what each holds, for how long, and how much. Pure values; `jetstream.stream_admin` applies them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from bus_schemas.errors import BadNameError
from bus_schemas.subjects import Subjects

DAY_S = 86_400.0
NO_AGE_LIMIT_S = 0.0
"""The value with which the server keeps messages of any age."""
PLANS_AGE_S = 7200.0
"""As long as the newest 240 records of a deployment last at a tick of 30 s."""
KIB, MIB = 1 << 10, 1 << 20
MAX_CONSUMERS = 20_000
"""Consumers a stream may have. Always explicit: server 2.15 caps a stream at 1,000 otherwise, and -1 means that too."""
PASSING_BYTES = 64 * MIB
"""Size limit of telemetry and of dead letters. The server reserves it, so it must fit into a small server's memory."""
TELEMETRY_BYTES = 32 * KIB
"""The most that one telemetry message may have; a node of 16 GPUs sends 8 KB. Times the messages kept per subject it is
an eighth of the stream: an agent that floods cannot push out what other nodes reported last."""
ACK_BYTES = 64 * KIB
COMMAND_BYTES = 16 * KIB
LETTER_BYTES = 128 * KIB
"""A dead letter holds up to 64 KiB of the message that it is about, as base64."""
KV_HISTORY = 64
"""The most that the KV format allows per key."""


DECISIONS = "WATTSCALE_DECISIONS"
ACKS = "WATTSCALE_ACKS"
CONTROL = "WATTSCALE_CONTROL"
TELEMETRY = "WATTSCALE_TELEMETRY"
PLANS = "WATTSCALE_PLANS"
DEADLETTER = "WATTSCALE_DEADLETTER"
KV_BUCKET = "wattscale"
KV_STREAM = f"KV_{KV_BUCKET}"

PASSING = frozenset({TELEMETRY, PLANS})
"""Streams whose messages are soon replaced by newer ones of their subject. Kept in memory."""

_BY_KIND = {
    "decision": DECISIONS,
    "lease": DECISIONS,
    "ack": ACKS,
    "claim": ACKS,
    "control": CONTROL,
    "telemetry.node": TELEMETRY,
    "telemetry.plan": PLANS,
    "deadletter": DEADLETTER,
}


def stream_of(subjects: Subjects, subject: str) -> str:
    """The stream that stores ``subject`` (or a wildcard of one kind). Raises BadNameError for a foreign subject."""
    start = subjects.root + "."
    kind, _, rest = (subject[len(start) :] if subject.startswith(start) else "").partition(".")
    found = _BY_KIND.get(kind) or _BY_KIND.get(f"{kind}.{rest.partition('.')[0]}")
    if found is None:
        raise BadNameError(f"subject {subject!r} belongs to no single stream of prefix {subjects.prefix!r}")
    return found


def forgets(config: Mapping[str, Any]) -> str:
    """Why a stream of this configuration, in the server's words, may lose the last message of a silent subject.

    One sentence with the remedy; empty where it keeps it whatever happens.
    """
    name = config.get("name", "the stream")
    for key, words in (("max_age", "its age"), ("max_bytes", "bytes"), ("max_msgs", "messages of all subjects")):
        limit = config.get(key, 0)
        if isinstance(limit, int) and limit > 0:
            text = f"{limit / 1e9:.12g} s" if key == "max_age" else str(limit)
            return f"{name} forgets by {words} ({key} {text}), silent nodes too: run `wattscale streams apply`"
    if config.get("storage") == "memory":
        return f"{name} is kept in memory and forgets every node at a restart: make it anew with file storage"
    return ""


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """The desired configuration of one stream. Unlimited: -1 for counts and bytes, 0 for ages."""

    name: str
    description: str
    subjects: tuple[str, ...]
    storage: str
    max_age_s: float
    max_msgs_per_subject: int = -1
    max_bytes: int = -1
    max_msg_bytes: int = -1
    """The most that one message may have."""
    formerly: tuple[str, ...] = ()
    """Subjects that the stream had in earlier versions, and that other streams store now."""
    duplicate_window_s: float = 120.0
    deny_delete: bool = False
    allow_msg_ttl: bool = False
    allow_atomic: bool = False
    republish: tuple[str, str] | None = None
    sources: tuple[tuple[str, str, str], ...] = ()
    """(stream, subject there, subject here) of each source."""
    max_consumers: int = MAX_CONSUMERS
    replicas: int = 1


def stream_specs(
    subjects: Subjects,
    *,
    replicas: int = 1,
    max_consumers: int = MAX_CONSUMERS,
    telemetry_max_bytes: int = PASSING_BYTES,
) -> tuple[StreamSpec, ...]:
    """All streams, a source before the stream that reads it. Each installation on a shared server needs an account."""
    every = subjects.everything()
    spec = partial(
        StreamSpec, republish=(every, subjects.stored(every)), max_consumers=max_consumers, replicas=replicas
    )
    kept: dict[str, Any] = {"max_msgs_per_subject": 1024, "deny_delete": True, "allow_msg_ttl": True}
    decided = (subjects.all_decisions(), subjects.all_leases())
    acks, control = (subjects.all_acks(), subjects.all_claims()), (subjects.all_control(),)
    dead = (subjects.all_deadletters(),)
    readings, plans = (subjects.all_of("telemetry", "node"),), (subjects.all_of("telemetry", "plan"),)
    passing: dict[str, Any] = {"max_msgs_per_subject": 240, "max_bytes": telemetry_max_bytes}
    return (
        # A node may be silent for longer than any age. Its last decision is the only record of the watts that it may
        # draw, and its last acknowledgement the only proof of a cap.
        spec(
            DECISIONS, "Decisions and the leadership lease", decided, "file", NO_AGE_LIMIT_S, allow_atomic=True, **kept
        ),
        spec(ACKS, "What is in force, and claims", acks, "file", NO_AGE_LIMIT_S, max_msg_bytes=ACK_BYTES, **kept),
        # A command holds until the next one: if it aged out, the next leader would give its watts back.
        spec(
            CONTROL,
            "Commands of operators and grid signals",
            control,
            "file",
            NO_AGE_LIMIT_S,
            max_msgs_per_subject=8192,
            max_msg_bytes=COMMAND_BYTES,
        ),
        spec(
            TELEMETRY,
            "Readings of the nodes",
            readings,
            "memory",
            3600.0,
            max_msg_bytes=TELEMETRY_BYTES,
            formerly=(subjects.all_telemetry(),),
            **passing,
        ),
        # Apart from the readings: what planners remember must not depend on how much the agents send.
        spec(PLANS, "Plan records", plans, "memory", PLANS_AGE_S, **passing),
        spec(
            DEADLETTER,
            "Messages that cannot be carried out",
            dead,
            "file",
            30 * DAY_S,
            max_bytes=PASSING_BYTES,
            max_msg_bytes=LETTER_BYTES,
        ),
        _bucket(subjects, replicas, max_consumers),
    )


def _bucket(subjects: Subjects, replicas: int, max_consumers: int) -> StreamSpec:
    return StreamSpec(
        KV_STREAM,
        "Current decisions as a read-only KV bucket",
        (),
        "file",
        NO_AGE_LIMIT_S,
        max_msgs_per_subject=KV_HISTORY,
        sources=((DECISIONS, subjects.all_decisions(), f"$KV.{KV_BUCKET}.decision.>"),),
        max_consumers=max_consumers,
        replicas=replicas,
    )
