"""A frontend pool: sized by requests a second per replica, with the limits and windows of every other pool."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.domain.config import OperationMode, PlannerConfig, PoolConfig, ScalingRules, SizingMode
from planner.domain.ids import PoolId
from planner.domain.observation import DeploymentCommand
from planner.domain.pool import Role
from planner.domain.reasons import ReasonCode
from tests.unit.planner.core.small_site import CURVE, DECODE, PREFILL, SITE, D, SmallSite, deployment, planner, traffic
from tests.unit.planner.core.test_step import Drive

FRONTEND = PoolId("frontend")
AT_ONCE = ScalingRules(stabilization_window_s=0.0)


def frontend(**changes: Any) -> PoolConfig:
    base = PoolConfig(
        FRONTEND, Role.FRONTEND, 0, CURVE, max_replicas=20, requests_per_s=10.0, learn_power=False, scale_down=AT_ONCE
    )
    return replace(base, **changes)


def graph(pool: PoolConfig | None = None, **changes: Any) -> PlannerConfig:
    return planner(deployment(other_pools={FRONTEND: pool or frontend()}, predictor="constant", **changes))


def granted(drive: Drive, rate: float | None) -> int:
    return drive(traffic(rate)).deployments[D].pools[FRONTEND].granted


@pytest.mark.parametrize("sizing", [SizingMode.SLA, SizingMode.CLASSIC, SizingMode.SLA_LOAD])
def test_replicas_follow_the_request_rate_in_every_mode(sizing: SizingMode) -> None:
    drive = Drive(graph(sizing=sizing))
    assert granted(drive, 35.0) >= 4
    plan = drive(traffic(35.0)).deployments[D].pools[FRONTEND]
    assert plan.chain[0].reason is ReasonCode.REQUEST_RATE
    assert plan.setpoint is None


def test_a_decision_names_the_frontend_beside_the_workers() -> None:
    (decision,) = Drive(graph())(traffic(35.0)).scaling
    assert decision.roles[FRONTEND] is Role.FRONTEND
    assert decision.replicas[FRONTEND] >= 4
    assert {PREFILL, DECODE} <= decision.replicas.keys()


def test_bounds_steps_and_windows_are_those_of_every_pool() -> None:
    assert granted(Drive(graph(frontend(max_replicas=2))), 100.0) == 2
    assert granted(Drive(graph(frontend(min_replicas=3))), 1.0) == 3
    assert granted(Drive(graph(frontend(max_step=1))), 100.0) == 2
    slow = Drive(graph(frontend(scale_down=ScalingRules(stabilization_window_s=300.0))))
    most = granted(slow, 100.0)
    assert [granted(slow, 1.0) for _ in range(9)] == [most] * 9
    assert granted(slow, 1.0) < most


def test_without_metrics_under_a_pause_and_under_a_pin_it_holds_as_the_others() -> None:
    drive = Drive(graph())
    held = granted(drive, 35.0)
    assert granted(drive, None) == held
    paused = drive(traffic(90.0), DeploymentCommand(D, "pause", sequence=1))
    assert paused.deployments[D].pools[FRONTEND].granted == held
    pinned = drive(
        traffic(90.0), DeploymentCommand(D, "resume", sequence=2), DeploymentCommand(D, "pin", {FRONTEND: 7}, 3)
    )
    assert pinned.deployments[D].pools[FRONTEND].granted == 7


def test_a_gpu_budget_is_not_its() -> None:
    drive = Drive(graph(max_gpus=2))
    plan = drive(traffic(90.0)).deployments[D].pools
    assert plan[PREFILL].granted + plan[DECODE].granted <= 2
    assert plan[FRONTEND].granted >= 9


def test_it_never_waits_for_watts_and_takes_no_gpu() -> None:
    config = planner(deployment(other_pools={FRONTEND: frontend()}, predictor="constant"), budget_mw=8 * 200_000)
    site = SmallSite(config, nodes=1, gpus_per_node=8)
    site.run_pods(prefill=1, decode=1)
    for _ in range(3):
        plan = site.tick(traffic(90.0))
        site.pass_time(30.0)
    assert plan.deployments[D].pools[FRONTEND].granted >= 9
    assert all(hint.pool != FRONTEND for decision in site.published for hint in decision.placements)
    assert all(FRONTEND in decision.replicas for decision in site.published)
    assert sum(site.caps.values()) <= 8 * 200_000
    assert SITE in plan.sites


def test_advisory_shows_it_and_publishes_nothing() -> None:
    plan = Drive(graph(mode=OperationMode.ADVISORY))(traffic(90.0))
    assert plan.scaling == ()
    assert plan.deployments[D].pools[FRONTEND].wanted >= 9
