"""What another planner's decisions in etcd become on our bus: pins of pools, one for each decision, in order. Pure.

Our planner stays the only writer of decisions. A pin asks it for the counts of one decision of the other planner; the
decision is completed when ours for that pin is carried out. `next_step` knows nothing but what etcd and the bus hold:
a crash between any two of its actions loses nothing and repeats nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from agent.core.scaling.acknowledging import MOST_REPLICAS
from agent.core.scaling.scaling_types import DecisionKey

_ID = re.compile(r"dynamo/(?P<source>.+)/(?P<store>[^/]+)/(?P<revision>[0-9]+)/(?P<decision>[0-9]+)")
_ROLES = {"prefill": ("prefill",), "decode": ("decode", "aggregated")}
"""Which of our roles one of Dynamo's may be: its planner of aggregated workers counts them as decode."""


@dataclass(frozen=True, slots=True)
class PinId:
    """What tells a decision in etcd from all others of its namespace, also where its own id begins again at 0.

    ``store``: differs between an etcd and one that took its place without its data. ``revision``: of the write.
    """

    source: str
    store: str
    revision: int
    decision_id: int

    def text(self) -> str:
        """As commands carry it; `pin_id` reads it."""
        return f"dynamo/{self.source}/{self.store}/{self.revision}/{self.decision_id}"

    def replaced_by(self, other: PinId) -> bool:
        """Whether ``other`` is a later decision of the same source."""
        return self.store != other.store or self.revision < other.revision


def pin_id(text: str | None) -> PinId | None:
    """What `PinId.text` wrote; None for anything else."""
    found = _ID.fullmatch(text or "")
    return (
        None
        if found is None
        else PinId(found["source"], found["store"], int(found["revision"]), int(found["decision"]))
    )


@dataclass(frozen=True, slots=True)
class ForeignDecision:
    """A decision in etcd. Counts: None where it sets none. ``scaled_id``: the completed one, None where it has none."""

    key: PinId
    prefill: int | None
    decode: int | None
    scaled_id: int | None

    @property
    def completed(self) -> bool:
        """Whether the other planner takes it for carried out."""
        return self.scaled_id is not None and self.scaled_id >= self.key.decision_id


@dataclass(frozen=True, slots=True)
class CommandSeen:
    """One command on the deployment. ``sequence``: its place among all commands; ``command_id`` None: none given."""

    sequence: int
    action: str
    command_id: str | None = None
    issued_by: str = ""
    replicas: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommandsSeen:
    """All commands on the deployment, as far as pins of one source need them.

    ``newest``: the source's last pin, of ``replicas``. ``overridden``: what somebody else commanded after it.
    ``sequence``: of the last command of anybody, readable or not, 0 where there is none.
    """

    newest: PinId | None = None
    replicas: Mapping[str, int] = field(default_factory=dict)
    overridden: CommandSeen | None = None
    sequence: int = 0

    def after(self, commands: Sequence[CommandSeen], source: str, sequence: int = 0) -> CommandsSeen:
        """With further commands, oldest first. ``sequence``: of the last message, which may not be readable."""
        seen = self
        for command in commands:
            pin = pin_id(command.command_id) if command.action == "pin" else None
            if pin is not None and pin.source == source:
                seen = CommandsSeen(pin, command.replicas, None, command.sequence)
            else:
                seen = replace(seen, sequence=command.sequence, overridden=_overriding(seen, command))
        return replace(seen, sequence=max(seen.sequence, sequence))


def _overriding(seen: CommandsSeen, command: CommandSeen) -> CommandSeen | None:
    """What stands against the source's pin now. A pause ends with its resume; another pin or a release stays."""
    before = seen.overridden
    if command.action == "resume":
        return None if before is not None and before.action == "pause" else before
    if command.action == "pause" and before is not None:
        return before
    return command


@dataclass(frozen=True, slots=True)
class PlannedPool:
    """One pool in our planner's last plan. ``why``: its sentence for the count; ``least`` and ``most``: its bounds."""

    role: str
    granted: int
    why: str = ""
    least: int | None = None
    most: int | None = None

    def against(self, count: int) -> str:
        """What keeps the pool from this count."""
        if self.most is not None and count > self.most:
            return f"its max_replicas is {self.most}"
        if self.least is not None and count < self.least:
            return f"its min_replicas is {self.least}"
        return self.why or "no reason is given"


@dataclass(frozen=True, slots=True)
class OurPlan:
    """What our planner did last. ``pin_id``: of the pin that it follows; ``pools``: with GPUs, by name."""

    pin_id: str | None
    pools: Mapping[str, PlannedPool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OurDecision:
    """Our planner's last decision, read after its plan."""

    key: DecisionKey
    replicas: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class BusSeen:
    """What the bus holds of the deployment. ``scaled``: the decision that was last carried out completely."""

    commands: CommandsSeen = CommandsSeen()
    plan: OurPlan | None = None
    decision: OurDecision | None = None
    scaled: DecisionKey | None = None


@dataclass(frozen=True, slots=True)
class ForgetCompletion:
    """Remove ``scaled_decision_id``: it is of a decision before ``key``, whose id happens to be lower."""

    key: PinId


@dataclass(frozen=True, slots=True)
class PublishPin:
    """Publish a pin, provided that no command came after ``after_sequence``."""

    key: PinId
    replicas: Mapping[str, int]
    after_sequence: int


@dataclass(frozen=True, slots=True)
class CompleteForeign:
    """Write the id of ``key`` as ``scaled_decision_id``, provided that its decision is still the one in etcd."""

    key: PinId


PinAction: TypeAlias = ForgetCompletion | PublishPin | CompleteForeign


@dataclass(frozen=True, slots=True)
class PinStep:
    """``action``: what to do now, None: nothing. ``open_because``: why the decision in etcd is not completed yet; empty
    where none is open."""

    action: PinAction | None = None
    open_because: str = ""


def next_step(foreign: ForeignDecision | None, bus: BusSeen, scaled_id: int | None = None) -> PinStep:
    """The next action for the decision that etcd holds, or why there is none. ``foreign`` None: etcd holds none, but
    perhaps a ``scaled_id``.

    A decision that vanishes (its writer's lease ran out, or etcd lost its data) leaves its pin in force. It is
    completed all the same: its planner may live, wait for that, and publish nothing before.
    """
    newest = bus.commands.newest
    if foreign is None:
        done = newest is None or (scaled_id is not None and scaled_id >= newest.decision_id)
        return PinStep() if newest is None or done else _pinned(newest, bus)
    if newest == foreign.key:
        return PinStep() if foreign.completed else _pinned(newest, bus)
    if newest is not None and not newest.replaced_by(foreign.key):
        return PinStep(open_because="a later decision has been pinned already")
    if foreign.completed:
        # An id that began again at 0 looks completed by what was completed before; its planner must not believe it.
        return PinStep(ForgetCompletion(foreign.key), "it is new")
    wanted = _wanted(foreign, bus.plan)
    if isinstance(wanted, str):
        return PinStep(open_because=wanted)
    return PinStep(PublishPin(foreign.key, wanted, bus.commands.sequence), "it is being pinned")


def _wanted(foreign: ForeignDecision, plan: OurPlan | None) -> Mapping[str, int] | str:
    """The pin's replicas by pool, or why there can be no pin."""
    counts = {"prefill": foreign.prefill, "decode": foreign.decode}
    given = {role: count for role, count in counts.items() if count is not None and count >= 0}
    if not given:
        return "it sets no count"
    if plan is None:
        return "no plan of this deployment is on the bus: is a Wattscale planner running?"
    found: dict[str, int] = {}
    for role, count in given.items():
        if count > MOST_REPLICAS:
            return f"{count} {role} workers: not between 0 and {MOST_REPLICAS}"
        pools = sorted(name for name, pool in plan.pools.items() if pool.role in _ROLES[role])
        if len(pools) > 1:
            return f"{count} {role} workers: which of the pools {', '.join(pools)}?"
        if not pools and count:
            return f"{count} {role} workers: the deployment has no pool of that role"
        found |= dict.fromkeys(pools, count)
    return found or "the deployment has none of its pools"


def _pinned(key: PinId, bus: BusSeen) -> PinStep:
    """The step for a decision whose pin is the newest of its source on the bus."""
    if (by := bus.commands.overridden) is not None:
        who = by.issued_by or "an operator"
        return PinStep(open_because=f"{who} commanded {by.action} after its pin")
    plan, ours, wanted = bus.plan, bus.decision, bus.commands.replicas
    if plan is None or plan.pin_id != key.text():
        return PinStep(open_because="our planner has not taken its pin yet")
    if gone := sorted(set(wanted) - set(plan.pools)):
        return PinStep(open_because=f"the deployment has no pool {', '.join(gone)} any more")
    short = [
        f"{pool} has {plan.pools[pool].granted} of {count}: {plan.pools[pool].against(count)}"
        for pool, count in sorted(wanted.items())
        if plan.pools[pool].granted != count
    ]
    if short:
        return PinStep(open_because="; ".join(short))
    if ours is None or any(ours.replicas.get(pool) != count for pool, count in wanted.items()):
        return PinStep(open_because="our planner has not published a decision for its pin yet")
    if bus.scaled is None or bus.scaled[0] != ours.key[0] or bus.scaled[1] < ours.key[1]:
        return PinStep(open_because=f"decision {ours.key[1]} of our planner is being carried out")
    return PinStep(CompleteForeign(key))
