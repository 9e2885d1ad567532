"""The core with a small cluster, interrupted everywhere: a crash, or another writer, before and after each effect.

`Connector.work` is a generator that stops after each effect (an acknowledgement stored, a count written). A crash drops
it: the next process has the stored decision, the stored acknowledgements and the cluster, and nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from agent.core.scaling.acknowledging import receive, report, restored
from agent.core.scaling.counts import compare, in_force_by_us
from agent.core.scaling.scaling_types import (
    Acknowledgement,
    PoolSeen,
    ReplicaDecision,
    ScalingPhase,
    ScalingStatus,
    SetReplicas,
)

POOLS = ("prefill", "decode")
DECISIONS = [
    ReplicaDecision(0, "i", {"prefill": 1, "decode": 2}),
    ReplicaDecision(1, "i", {"prefill": 2, "decode": 1}),
    ReplicaDecision(2, "i", {"prefill": 0, "decode": 3}),
    ReplicaDecision(0, "j", {"prefill": 1, "decode": 1}),
]


@dataclass
class SmallPool:
    """Workers: one starts and one leaves with each `pass_time`."""

    wanted: int = 0
    ready: int = 0
    leaving: int = 0
    version: int = 0

    def pass_time(self) -> None:
        surplus = max(0, self.ready - self.wanted)
        self.leaving = max(0, self.leaving - 1) + surplus
        self.ready = min(self.ready + 1, self.wanted) if not surplus else self.wanted

    def seen(self) -> PoolSeen:
        return PoolSeen(self.wanted, self.ready, self.leaving, version=str(self.version))


@dataclass
class SmallCluster:
    """What outlives a connector: the stream's newest decision, the stored acknowledgements, and the cluster."""

    newest: ReplicaDecision | None = None
    stored: list[Acknowledgement] = field(default_factory=list)
    pools: dict[str, SmallPool] = field(default_factory=lambda: {name: SmallPool() for name in POOLS})

    def write(self, action: SetReplicas) -> bool:
        pool = self.pools[action.pool]
        if action.version != str(pool.version):
            return False
        self.edit(action.pool, action.replicas)
        return True

    def edit(self, name: str, count: int) -> None:
        self.pools[name].wanted, self.pools[name].version = count, self.pools[name].version + 1

    def store(self, ack: Acknowledgement) -> None:
        if ack.status is ScalingStatus.APPLIED:
            assert self.newest is not None
            assert ack.decision_id <= self.newest.decision_id or ack.incarnation != self.newest.incarnation
            if (ack.incarnation, ack.decision_id) == self.newest.key:
                self.check_in_force(self.newest, ack)
        self.stored.append(ack)

    def check_in_force(self, decision: ReplicaDecision, ack: Acknowledgement) -> None:
        """An acknowledgement is true at the time of the observation; only another writer may have come since."""
        for name, count in decision.replicas.items():
            if name not in self.edited:
                assert (self.pools[name].wanted, self.pools[name].ready >= count) == (count, True)
                assert ack.phase is not ScalingPhase.DRAINED or self.pools[name].leaving == 0

    edited: set[str] = field(default_factory=set)


def work(world: SmallCluster, overwrite: bool) -> Iterator[str]:
    """A connector's process, from its start; yields after each effect."""
    state = restored(world.stored[-1] if world.stored else None)
    written: dict[str, int] = {}
    while True:
        if world.newest is not None:
            state, _, acks = receive(state, world.newest, POOLS)
            for ack in acks:
                world.store(ack)
                yield "stored"
        if state.pursued is not None:
            seen = {name: pool.seen() for name, pool in world.pools.items()}
            result = compare(state.pursued, seen, in_force_by_us(state, written), overwrite=overwrite)
            state, acks = report(state, result.progress)
            for ack in acks:
                world.store(ack)
                yield "stored"
            for action in result.actions:
                yield "before a write"
                if world.write(action):
                    written[action.pool] = action.replicas
                    yield "written"
        for pool in world.pools.values():
            pool.pass_time()
        yield "idle"


MOST_STEPS = 400


def play(
    at: dict[int, Callable[[SmallCluster], bool]], *, complete_first: bool, overwrite: bool = False
) -> tuple[SmallCluster, int, bool]:
    """Publish all decisions one after the other, each when the connector rests or has completed the one before.

    ``at``: by step, what happens then; it returns whether the process dies. Returns the world, the number of steps, and
    whether all was carried out.
    """
    world, process = SmallCluster(), None
    waiting = list(DECISIONS)
    quiet = 0
    for step in range(MOST_STEPS):
        if process is None:
            process = work(world, overwrite)
        if step in at and at[step](world):
            process = None
            continue
        effect = next(process)
        quiet = quiet + 1 if effect == "idle" else 0
        last = world.stored[-1] if world.stored else None
        complete = world.newest is None or (
            last is not None
            and last.incarnation == world.newest.incarnation
            and last.scaled_id >= world.newest.decision_id
        )
        if waiting and (complete or not complete_first) and (quiet or world.newest is None):
            world.newest = waiting.pop(0)
            quiet = 0
        elif not waiting and quiet > 8:
            return world, step, complete
    raise AssertionError(f"not at rest after {MOST_STEPS} steps: {world.stored[-5:]}")


def crash(world: SmallCluster) -> bool:
    return True


def edit(world: SmallCluster) -> bool:
    world.edited.add("decode")
    world.edit("decode", 7)
    return False


def judge(world: SmallCluster, *, complete_first: bool) -> None:
    """The promises about acknowledgements, whatever happened."""
    for incarnation, run in itertools.groupby(world.stored, key=lambda ack: ack.incarnation):
        acks = list(run)
        scaled = [ack.scaled_id for ack in acks]
        assert scaled == sorted(scaled), "a completed id never goes back"
        ids = [ack.decision_id for ack in acks]
        assert ids == sorted(ids), "acknowledged ids rise"
        for one in sorted(set(ids)):
            finals = [(ack.status, ack.phase) for ack in acks if ack.decision_id == one and ack.status in ENDS]
            assert finals, f"decision {one} of {incarnation} has no end"
            assert len({status for status, _ in finals}) == 1
            # After a report of another writer's edit, that the counts are in force again is news.
            edited = any(ack.status is ScalingStatus.PARTIAL for ack in acks if ack.decision_id == one)
            assert edited or len(finals) == len(set(finals)), f"decision {one} of {incarnation} ends twice: {finals}"
            if complete_first:
                assert finals[0][0] is ScalingStatus.APPLIED
    assert {(ack.incarnation, ack.decision_id) for ack in world.stored} == {one.key for one in DECISIONS}


ENDS = {ScalingStatus.APPLIED, ScalingStatus.SUPERSEDED, ScalingStatus.REJECTED}


@pytest.mark.parametrize("complete_first", [True, False])
def test_without_faults_every_decision_ends_and_the_last_is_in_force(complete_first: bool) -> None:
    world, _, complete = play({}, complete_first=complete_first)
    judge(world, complete_first=complete_first)
    assert complete
    assert world.stored[-1].phase is ScalingPhase.DRAINED
    assert {name: pool.ready for name, pool in world.pools.items()} == DECISIONS[-1].replicas


@pytest.mark.parametrize("complete_first", [True, False])
def test_a_crash_after_any_effect_loses_and_repeats_nothing(complete_first: bool) -> None:
    steps = play({}, complete_first=complete_first)[1]
    for first in range(steps):
        for second in range(first, steps + 10, 3):
            world, _, complete = play({first: crash, second: crash}, complete_first=complete_first)
            judge(world, complete_first=complete_first)
            assert complete
            assert world.stored[-1].phase is ScalingPhase.DRAINED


def test_two_edits_or_an_edit_and_a_crash_leave_the_promises_whole() -> None:
    steps = play({}, complete_first=False)[1]
    for first in range(steps):
        for second in range(first + 1, steps, 2):
            for other in (edit, crash):
                world, _, complete = play({first: edit, second: other}, complete_first=False, overwrite=True)
                judge(world, complete_first=False)
                assert complete
                assert world.pools["decode"].wanted == DECISIONS[-1].replicas["decode"]


def test_an_edit_is_never_fought_without_the_setting() -> None:
    steps = play({}, complete_first=False)[1]
    kept = 0
    for first in range(steps):
        world, _, _ = play({first: edit}, complete_first=False)
        if world.pools["decode"].wanted == 7:
            kept += 1
            assert "somebody else set 7" in world.stored[-1].reason
    assert kept > steps // 2
