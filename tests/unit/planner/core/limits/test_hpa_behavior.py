"""HPA's behaviour block, case by case as Kubernetes documents it."""

from __future__ import annotations

import pytest

from planner.core.allocation.returns import History
from planner.core.limits import bounds, hpa_behavior
from planner.domain.config import PoolConfig, ScalingPolicy, ScalingRules
from planner.domain.reasons import ReasonCode
from tests.unit.planner.core.small_site import DECODE, PREFILL, deployment, pool


def rules(select: str = "Max", *policies: tuple[str, int, float], window_s: float = 0.0) -> ScalingRules:
    return ScalingRules(window_s, tuple(ScalingPolicy(*policy) for policy in policies), select)


def limited(config: PoolConfig, current: int, desired: int, events: History = (), t_s: float = 1000.0) -> int:
    found = hpa_behavior.rate_limit(config, current, desired, events, t_s)
    return desired if found is None else found.value


@pytest.mark.parametrize(
    ("select", "policies", "current", "allowed"),
    [
        ("Max", [("Pods", 4, 15.0), ("Percent", 100, 15.0)], 1, 5),
        ("Max", [("Pods", 4, 15.0), ("Percent", 100, 15.0)], 10, 20),
        ("Min", [("Pods", 4, 15.0), ("Percent", 100, 15.0)], 10, 14),
        ("Max", [("Percent", 10, 60.0)], 11, 13),  # 12.1 rounds up
        ("Max", [("Pods", 1, 60.0)], 0, 1),
        ("Disabled", [("Pods", 4, 15.0)], 3, 3),
        ("Max", [], 3, 100),
    ],
)
def test_scale_up_policies(select: str, policies: list[tuple[str, int, float]], current: int, allowed: int) -> None:
    assert limited(pool(PREFILL, scale_up=rules(select, *policies)), current, 100) == allowed


@pytest.mark.parametrize(
    ("select", "policies", "current", "allowed"),
    [
        ("Max", [("Pods", 4, 60.0), ("Percent", 10, 60.0)], 80, 72),
        ("Min", [("Pods", 4, 60.0), ("Percent", 10, 60.0)], 80, 76),
        ("Max", [("Percent", 10, 60.0)], 5, 4),  # 4.5 is cut to 4, as Kubernetes cuts
        ("Max", [("Percent", 100, 15.0)], 7, 0),
        ("Disabled", [("Pods", 4, 60.0)], 9, 9),
        ("Max", [], 9, 0),
    ],
)
def test_scale_down_policies(select: str, policies: list[tuple[str, int, float]], current: int, allowed: int) -> None:
    assert limited(pool(PREFILL, scale_down=rules(select, *policies)), current, 0) == allowed


def test_a_policy_counts_what_already_changed_within_its_period() -> None:
    config = pool(PREFILL, scale_up=rules("Max", ("Pods", 4, 60.0)))
    assert limited(config, 8, 100, ((950.0, 3),)) == 9  # the period began with 5
    assert limited(config, 8, 100, ((940.0, 3),)) == 12  # exactly a period ago is outside it
    assert limited(config, 4, 100, ((990.0, -4),)) == 12  # what left within the period may come back on top


def test_a_spent_policy_holds_but_never_turns_the_direction() -> None:
    config = pool(PREFILL, scale_up=rules("Max", ("Pods", 2, 60.0)), scale_down=rules("Max", ("Pods", 2, 60.0)))
    assert limited(config, 9, 12, ((990.0, 5),)) == 9
    assert limited(config, 3, 0, ((990.0, -5),)) == 3


def stabilized(config: PoolConfig, current: int, recommended: int, past: History, t_s: float = 1000.0) -> int:
    found = hpa_behavior.stabilize(config, current, recommended, past, t_s)
    return recommended if found is None else found.value


def test_scale_down_waits_for_the_highest_of_its_window() -> None:
    config = pool(PREFILL, scale_down=rules(window_s=300.0))
    past = ((650.0, 9), (720.0, 6), (900.0, 4))
    assert stabilized(config, 8, 3, past) == 6
    assert stabilized(config, 8, 3, past, 1021.0) == 4
    assert stabilized(config, 8, 3, ((700.0, 6),)) == 3  # exactly a window ago is outside it


def test_scale_down_never_climbs_above_what_runs() -> None:
    assert stabilized(pool(PREFILL, scale_down=rules(window_s=300.0)), 5, 3, ((900.0, 9),)) == 5


def test_scale_up_waits_for_the_lowest_of_its_window() -> None:
    config = pool(PREFILL, scale_up=rules(window_s=60.0), scale_down=rules())
    assert stabilized(config, 2, 8, ((960.0, 3), (990.0, 7))) == 3
    assert stabilized(config, 2, 8, ((960.0, 1),)) == 2


def test_limits_name_themselves() -> None:
    config = pool(PREFILL, scale_up=rules("Max", ("Pods", 1, 60.0)), scale_down=rules(window_s=300.0))
    up = hpa_behavior.rate_limit(config, 2, 9, (), 0.0)
    down = hpa_behavior.stabilize(config, 9, 2, ((0.0, 9),), 10.0)
    assert up is not None
    assert up.reason is ReasonCode.SCALE_UP_POLICY
    assert "3" in up.sentence
    assert down is not None
    assert down.reason is ReasonCode.STABILIZATION_DOWN
    assert "300 s" in down.sentence


def test_minimum_maximum_and_step() -> None:
    config = pool(PREFILL, min_replicas=2, max_replicas=9, max_step=3)
    assert [
        limit.value if (limit := bounds.min_and_max_replicas(config, count)) else None for count in (1, 2, 9, 10)
    ] == [
        2,
        None,
        None,
        9,
    ]
    up, down = bounds.largest_step(config, 4, 9), bounds.largest_step(config, 9, 2)
    assert up is not None
    assert down is not None
    assert (up.value, down.value) == (7, 6)
    assert bounds.largest_step(config, 4, 7) is None


def test_a_gpu_budget_is_shared_so_that_both_pools_carry_the_same_load() -> None:
    pools = {PREFILL: pool(PREFILL), DECODE: pool(DECODE, gpus_per_replica=2)}
    one = deployment(pools, max_gpus=12)
    shares = bounds.gpu_shares(one, {PREFILL: 8, DECODE: 8}, {})
    assert {name: limit.value for name, limit in shares.items()} == {PREFILL: 4, DECODE: 4}
    assert bounds.gpu_shares(one, {PREFILL: 4, DECODE: 4}, {}) == {}


def test_a_growing_pool_takes_no_gpu_from_one_that_its_window_holds() -> None:
    one = deployment(max_gpus=12)
    shares = bounds.gpu_shares(one, {PREFILL: 10, DECODE: 8}, {PREFILL: 2, DECODE: 8})
    assert {name: limit.value for name, limit in shares.items()} == {PREFILL: 4}


def test_a_default_window_is_four_times_as_long_while_watts_are_short_and_gpus_are_not() -> None:
    default, given = pool(DECODE, scale_down=ScalingRules()), pool(DECODE, scale_down=rules(window_s=60.0))
    assert hpa_behavior.kept_s(default) == 4.0 * default.down_window_s
    assert hpa_behavior.kept_s(given) == 60.0, "a window that was set holds"
    assert hpa_behavior.horizon_s(default) == hpa_behavior.kept_s(default), "as long are recommendations remembered"
    past = ((0.0, 4), (default.down_window_s + 1.0, 1))
    now_s = default.down_window_s + 2.0
    assert hpa_behavior.stabilize(default, 4, 1, past, now_s) is None
    kept = hpa_behavior.stabilize(default, 4, 1, past, now_s, hpa_behavior.kept_s(default))
    assert kept is not None
    assert (kept.value, kept.reason) == (4, ReasonCode.STABILIZATION_DOWN)
