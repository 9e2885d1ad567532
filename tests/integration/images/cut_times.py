"""How long a budget cut took, by the bus's clock alone: it stamped the command, each decision and each answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import StoredMessage, all_messages


@dataclass(frozen=True, slots=True)
class CutTimes:
    """``in_force_s``: from the stored command to the report after which all agents' limits were within it.
    ``answer_s``: from a stored decision to its node's report that it is carried out, the fastest of earlier ones, which
    had nothing to wait for: what a message there and back takes through the same containers, at the same load.
    """

    before_watts: float
    after_watts: float
    in_force_s: float
    answer_s: float
    answers: int

    def __str__(self) -> str:
        return (
            f"cut: {self.before_watts:.0f} to {self.after_watts:.0f} W in force on every agent after "
            f"{self.in_force_s * 1000:.0f} ms; a decision's answer takes {self.answer_s * 1000:.0f} ms "
            f"(fastest of {self.answers})"
        )


async def cut_times(bus: Bus, site: str) -> CutTimes:
    """Of the newest budget command of the bus's only site."""
    (*_, command) = await all_messages(bus, bus.subjects.control_budget(site))
    decisions = await all_messages(bus, bus.subjects.all_of("decision", "power"))
    acks = await all_messages(bus, bus.subjects.all_of("ack", "power"))
    return measured(command, decisions, acks)


def measured(command: StoredMessage, decisions: Sequence[StoredMessage], acks: Sequence[StoredMessage]) -> CutTimes:
    """Fails where the limits were within the new budget before the command, or are above it after the last report."""
    change, ordered_at = command.message, _at(command)
    assert isinstance(change, v1.BudgetChange)
    sums = list(_sums(acks))
    before_watts = [watts for at, watts in sums if at <= ordered_at][-1]
    assert before_watts > change.budget_watts, "the cut binds nothing"
    in_force_at, after_watts = next(
        (at, watts) for at, watts in sums if at > ordered_at and watts <= change.budget_watts
    )
    earlier = [one for one in decisions if _at(one) < ordered_at]
    answers = [found for one in earlier if (found := _answered_s(one, acks)) is not None]
    taken_s = (in_force_at - ordered_at).total_seconds()
    return CutTimes(before_watts, after_watts, taken_s, min(answers), len(answers))


def _sums(acks: Sequence[StoredMessage]) -> Iterator[tuple[datetime, float]]:
    """At each report: the limits that were last read back on all nodes that had reported by then."""
    by_node: dict[str, float] = {}
    for one in acks:
        ack = one.message
        assert isinstance(ack, v1.PowerAck)
        by_node[ack.node] = sum(gpu.enforced_watts or 0.0 for gpu in ack.gpus)
        yield _at(one), sum(by_node.values())


def _answered_s(decision: StoredMessage, acks: Sequence[StoredMessage]) -> float | None:
    """Until the report that it is carried out; None where a later decision replaced it first."""
    given = decision.message
    assert isinstance(given, v1.PowerDecision)
    for one in acks:
        ack = one.message
        if isinstance(ack, v1.PowerAck) and (ack.node, ack.applied_decision_id) == (given.node, given.decision_id):
            return (_at(one) - _at(decision)).total_seconds()
    return None


def _at(one: StoredMessage) -> datetime:
    assert one.stored_at is not None
    return one.stored_at
