"""What was decided in a period, why, what became of it, and what went wrong around it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bus_schemas import v1
from deploy.report.journal import Entry
from deploy.report.usage import Period

MOST_INCIDENTS = 200
"""Incidents that a report lists; the others are counted."""


@dataclass(frozen=True, slots=True)
class ReplicaChange:
    """A scaling decision: replicas by pool, the reason in words, and its last acknowledgement (empty: none)."""

    time: datetime
    deployment: str
    decision_id: int
    replicas: dict[str, int]
    why: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that an operator would want to know of: what, about whom, when first, and how often."""

    time: datetime
    about: str
    what: str
    times: int = 1


@dataclass(slots=True)
class Decided:
    """All of a period."""

    changes: list[ReplicaChange] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)
    """Scaling decisions by the code of each of their reasons."""
    power_decisions: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    """Acknowledgements of power decisions by status."""
    limits_lost: int = 0
    """Limits that were found reset (driver reload, reset) or changed by another."""
    terms: list[tuple[datetime, int]] = field(default_factory=list)
    """When each new leader's first decision was stored, and its epoch."""
    incidents: list[Incident] = field(default_factory=list)


def decided(entries: Iterable[Entry], period: Period) -> Decided:
    """Everything decided and acknowledged from ``since`` to ``until``, in the order of storing."""
    own = sorted(
        (entry for entry in entries if period.since <= entry.stored_at <= period.until),
        key=lambda entry: (entry.stored_at, entry.sequence),
    )
    found = Decided()
    outcomes = _scaling_outcomes(own)
    reasons: Counter[str] = Counter()
    acks: Counter[str] = Counter()
    epochs: set[int] = set()
    for entry in own:
        message = entry.message
        if isinstance(message, v1.ScalingDecision | v1.PowerDecision) and message.epoch not in epochs:
            epochs.add(message.epoch)
            found.terms.append((entry.stored_at, message.epoch))
        match message:
            case v1.ScalingDecision():
                reasons.update({reason.code for reason in message.reasons})
                found.changes.append(_change(entry.stored_at, message, outcomes))
            case v1.PowerDecision():
                found.power_decisions += 1
            case v1.PowerAck():
                acks[message.status.value] += 1
                found.limits_lost += sum(gpu.reset for gpu in message.gpus)
            case _:
                pass
    found.reasons, found.outcomes = dict(reasons.most_common()), dict(acks.most_common())
    found.incidents = incidents(own)
    return found


def _scaling_outcomes(entries: Sequence[Entry]) -> dict[tuple[str, str, int], str]:
    """The last status of each decision, by deployment, incarnation and id."""
    last = {}
    for entry in entries:
        if isinstance(ack := entry.message, v1.ScalingAck):
            words = ack.status.value + (f" ({ack.reason})" if ack.reason else "")
            last[ack.deployment, ack.incarnation, ack.decision_id] = words
    return last


def _change(at: datetime, decision: v1.ScalingDecision, outcomes: dict[tuple[str, str, int], str]) -> ReplicaChange:
    replicas = {name: target.replicas for name, target in sorted(decision.pools.items())} | dict(decision.other_pools)
    why = "; ".join(dict.fromkeys(reason.text for reason in decision.reasons)) or "nothing limits it"
    key = (decision.deployment, decision.incarnation, decision.decision_id)
    return ReplicaChange(at, decision.deployment, decision.decision_id, replicas, why, outcomes.get(key, ""))


def incidents(entries: Sequence[Entry]) -> list[Incident]:
    """Problems that planners noted, refusals and failures of actuators and agents, and messages nobody could carry out.

    Alike ones are one incident with a count: problems are noted at every tick.
    """
    first: dict[tuple[str, str], datetime] = {}
    times: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        for key in _what(entry):
            first.setdefault(key, entry.stored_at)
            times[key] += 1
    return [Incident(at, about, what, times[about, what]) for (about, what), at in first.items()]


def _what(entry: Entry) -> Iterable[tuple[str, str]]:
    match entry.message:
        case v1.PlanRecord() as record:
            for problem in record.problems:
                yield record.deployment, problem.text
        case v1.ScalingAck(status=v1.AckStatus.FAILED | v1.AckStatus.REJECTED) as scaled:
            yield scaled.deployment, f"decision {scaled.status}: {scaled.reason or 'no reason given'}"
        case v1.PowerAck(status=v1.AckStatus.FAILED | v1.AckStatus.REJECTED) as capped:
            yield capped.node, f"caps {capped.status}: {capped.reason or 'no reason given'}"
        case v1.DeadLetter() as letter:
            yield letter.consumer, f"could not use a message on {letter.subject}: {letter.reason}"
        case None:
            yield entry.subject, "a message that this version cannot decode"
        case _:
            return
