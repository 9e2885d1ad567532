"""What a newer decision waits for: nothing, the replicas of the last one, or its leavers, too."""

from __future__ import annotations

from dataclasses import replace

from planner.domain.config import SizingMode, WaitFor
from planner.domain.observation import PoolObservation
from planner.domain.pool import Replicas
from tests.unit.planner.core.small_site import DECODE, PREFILL, D, deployment, traffic
from tests.unit.planner.core.test_step import QUICK, drive


def test_leavers_that_drain_long_answers_hold_back_completion_alone() -> None:
    """The last decision grew decode and shrank prefill: decode serves, a prefill worker still drains."""
    for wait, held in ((WaitFor.COMPLETE, True), (WaitFor.READY, False), (WaitFor.NOTHING, False)):
        d = drive(deployment(QUICK, wait_for=wait))
        d(traffic(40.0))
        d.acknowledges = False
        counts = dict(d.state.deployments[D].flow.published)
        starting = {
            PREFILL: PoolObservation(Replicas(counts[PREFILL])),
            DECODE: PoolObservation(Replicas(0, starting=1)),
        }
        assert bool(d(replace(traffic(400.0), pools=starting)).scaling) is (wait is WaitFor.NOTHING)
        if wait is not WaitFor.NOTHING:
            serving = {name: PoolObservation(Replicas(count, terminating=1)) for name, count in counts.items()}
            assert bool(d(replace(traffic(400.0), pools=serving)).scaling) is not held, wait


def test_the_published_modes_wait_for_completion() -> None:
    assert {mode: deployment(QUICK, sizing=mode).waits_for for mode in SizingMode} == {
        SizingMode.SLA: WaitFor.NOTHING,
        SizingMode.CLASSIC: WaitFor.COMPLETE,
        SizingMode.LOAD: WaitFor.COMPLETE,
        SizingMode.SLA_LOAD: WaitFor.COMPLETE,
    }
    assert deployment(QUICK, sizing=SizingMode.CLASSIC, wait_for=WaitFor.READY).waits_for is WaitFor.READY
