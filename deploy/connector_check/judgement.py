"""What acknowledgements may say, as rules over all decisions that were sent and all answers to them. Pure.

Each rule gives one sentence for each breach. What an actuator leaves out (phases, pools) is not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bus_schemas.v1 import AckPhase, AckStatus, ScalingAck, ScalingDecision

Key = tuple[str, int]
_PHASES = (AckPhase.STARTING, AckPhase.APPLIED, AckPhase.DRAINING, AckPhase.DRAINED)
NEED_A_REASON = frozenset({AckStatus.PARTIAL, AckStatus.FAILED, AckStatus.REJECTED})


@dataclass(frozen=True, slots=True)
class CheckedTraffic:
    """Decisions in the order of sending, each once, and all acknowledgements in the order of the stream.

    ``impossible``: keys of decisions that nobody can carry out. ``past``: keys that were outdated when they were sent.
    """

    sent: Sequence[ScalingDecision]
    acks: Sequence[ScalingAck]
    impossible: frozenset[Key] = frozenset()
    past: frozenset[Key] = frozenset()
    known: Mapping[Key, ScalingDecision] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", {key_of(one): one for one in self.sent})


def key_of(message: ScalingDecision | ScalingAck) -> Key:
    """The decision that a message is, or is about."""
    return message.incarnation, message.decision_id


def refused_for_good(ack: ScalingAck) -> bool:
    """Whether an acknowledgement ends its decision without carrying it out."""
    return ack.status is AckStatus.REJECTED or (ack.status is AckStatus.FAILED and not ack.retryable)


def names(traffic: CheckedTraffic) -> Iterator[str]:
    """Every acknowledgement is about a decision that was sent."""
    for ack in traffic.acks:
        if key_of(ack) not in traffic.known:
            yield f"an acknowledgement of decision {ack.decision_id} of {ack.incarnation!r}, which was not sent"
    for name in sorted({ack.deployment for ack in traffic.acks} - {one.deployment for one in traffic.sent}):
        yield f"an acknowledgement in the name of deployment {name!r}"


def one_actuator(traffic: CheckedTraffic) -> Iterator[str]:
    """All acknowledgements come from one actuator."""
    found = sorted({ack.actuator for ack in traffic.acks if ack.actuator})
    if len(found) > 1:
        yield f"{len(found)} actuators acknowledge: {', '.join(found)}"


def never_back(traffic: CheckedTraffic) -> Iterator[str]:
    """Within an incarnation the completed id never decreases, and an incarnation that was replaced does not return."""
    reached: dict[str, int] = {}
    newest = ""
    for ack in traffic.acks:
        if ack.incarnation != newest and ack.incarnation in reached:
            if ack.status is not AckStatus.SUPERSEDED:
                yield f"decision {ack.decision_id} of the replaced {ack.incarnation!r} is {ack.status} after {newest!r}"
            continue
        newest = ack.incarnation
        before = reached.get(ack.incarnation, -1)
        if ack.scaled_decision_id < before:
            yield f"scaled_decision_id went back from {before} to {ack.scaled_decision_id}"
        reached[ack.incarnation] = max(before, ack.scaled_decision_id)


def completed_by_its_own(traffic: CheckedTraffic) -> Iterator[str]:
    """An id becomes completed by the acknowledgement of that decision, with ``applied``."""
    reached: dict[str, int] = {}
    for ack in traffic.acks:
        before = reached.get(ack.incarnation, -1)
        if ack.scaled_decision_id > before:
            if ack.scaled_decision_id > ack.decision_id:
                yield (
                    f"an acknowledgement of decision {ack.decision_id} says that {ack.scaled_decision_id} is completed"
                )
            elif ack.status is not AckStatus.APPLIED:
                yield f"decision {ack.decision_id} is completed with status {ack.status}"
            reached[ack.incarnation] = ack.scaled_decision_id
        elif ack.status is AckStatus.APPLIED and ack.scaled_decision_id < ack.decision_id:
            yield f"decision {ack.decision_id} is applied, but scaled_decision_id stays {ack.scaled_decision_id}"


def once(traffic: CheckedTraffic) -> Iterator[str]:
    """A decision is completed once; a second ``applied`` has a later phase, or follows a problem."""
    last: dict[Key, ScalingAck] = {}
    applied: set[Key] = set()
    for ack in traffic.acks:
        key, before = key_of(ack), last.get(key_of(ack))
        if ack.status is AckStatus.APPLIED:
            later = before is not None and (before.phase != ack.phase or before.status is not AckStatus.APPLIED)
            if key in applied and not later:
                yield f"decision {ack.decision_id} is completed twice"
            applied.add(key)
        last[key] = ack


def newest_only(traffic: CheckedTraffic) -> Iterator[str]:
    """After the first answer to a decision, no older one is completed."""
    newest: dict[str, int] = {}
    applied: set[Key] = set()
    for ack in traffic.acks:
        before = newest.get(ack.incarnation, -1)
        if ack.status is AckStatus.APPLIED and ack.decision_id < before and key_of(ack) not in applied:
            yield f"decision {ack.decision_id} is completed after decision {before} was begun"
        if ack.status is AckStatus.APPLIED:
            applied.add(key_of(ack))
        newest[ack.incarnation] = max(before, ack.decision_id)


def ended(traffic: CheckedTraffic) -> Iterator[str]:
    """Every decision is completed, superseded, or refused with a reason."""
    over = {
        key_of(ack)
        for ack in traffic.acks
        if ack.status in (AckStatus.APPLIED, AckStatus.SUPERSEDED) or refused_for_good(ack)
    }
    reached: dict[str, int] = {}
    for ack in traffic.acks:
        reached[ack.incarnation] = max(reached.get(ack.incarnation, -1), ack.scaled_decision_id)
    for key, decision in traffic.known.items():
        # Completing a decision ends those before it.
        if key not in over and key not in traffic.past and reached.get(key[0], -1) < decision.decision_id:
            yield f"decision {decision.decision_id} is neither completed nor superseded nor refused"


def refuses_the_impossible(traffic: CheckedTraffic) -> Iterator[str]:
    """What nobody can carry out is refused for good, never completed."""
    for ack in traffic.acks:
        if key_of(ack) in traffic.impossible and ack.status in (AckStatus.APPLIED, AckStatus.PARTIAL):
            yield f"decision {ack.decision_id}, which nobody can carry out, is {ack.status}"


def ignores_the_past(traffic: CheckedTraffic) -> Iterator[str]:
    """An id at or below one that was answered is not carried out again."""
    for ack in traffic.acks:
        if key_of(ack) in traffic.past and ack.status in (AckStatus.APPLIED, AckStatus.PARTIAL, AckStatus.ACCEPTED):
            yield f"decision {ack.decision_id}, which was outdated when it was sent, is {ack.status}"


def reasons(traffic: CheckedTraffic) -> Iterator[str]:
    """What is not carried out has a reason."""
    for ack in traffic.acks:
        if ack.status in NEED_A_REASON and not ack.reason.strip():
            yield f"decision {ack.decision_id} is {ack.status} without a reason"


def phases(traffic: CheckedTraffic) -> Iterator[str]:
    """Phases only move forward, and fit the status."""
    reached: dict[Key, int] = {}
    for ack in traffic.acks:
        if ack.phase is None:
            continue
        place, before = _PHASES.index(ack.phase), reached.get(key_of(ack), 0)
        if place < before:
            yield f"decision {ack.decision_id} went from phase {_PHASES[before]} back to {ack.phase}"
        done = ack.scaled_decision_id >= ack.decision_id
        if done == (ack.phase is AckPhase.STARTING):
            yield f"decision {ack.decision_id} is {ack.status} in phase {ack.phase}"
        reached[key_of(ack)] = max(place, before)


def counts(traffic: CheckedTraffic) -> Iterator[str]:
    """What is in force by an ``applied`` is what the decision asked for."""
    for ack in traffic.acks:
        decision = traffic.known.get(key_of(ack))
        if decision is None or ack.status is not AckStatus.APPLIED:
            continue
        for pool, target in decision.pools.items():
            ready = ack.pools[pool].ready if pool in ack.pools else ack.replicas.get(pool)
            if ready is not None and ready < target.replicas:
                yield f"decision {ack.decision_id} is applied with {ready} of {target.replicas} replicas of {pool}"
            if pool in ack.pools and ack.pools[pool].wanted != target.replicas:
                yield f"decision {ack.decision_id} wants {target.replicas} of {pool}, not {ack.pools[pool].wanted}"


RULES: Mapping[str, Callable[[CheckedTraffic], Iterator[str]]] = {
    "every acknowledgement names a decision": names,
    "one actuator answers": one_actuator,
    "completed ids never go back": never_back,
    "a decision completes itself only": completed_by_its_own,
    "nothing is completed twice": once,
    "a late completion never counts": newest_only,
    "every decision ends": ended,
    "what nobody can do is refused": refuses_the_impossible,
    "outdated ids are ignored": ignores_the_past,
    "a refusal has a reason": reasons,
    "phases move forward": phases,
    "counts are true": counts,
}


def judged(traffic: CheckedTraffic) -> dict[str, tuple[str, ...]]:
    """By rule, each breach in one sentence; empty where the rule holds."""
    return {name: tuple(rule(traffic)) for name, rule in RULES.items()}
