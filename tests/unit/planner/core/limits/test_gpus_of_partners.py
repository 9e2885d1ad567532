"""Pools of one deployment share its GPUs: a window keeps a replica for its pool, not from a partner that is short."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from planner.core.intake import initial_state
from planner.core.limits import bounds
from planner.core.step import step
from planner.domain.config import ScalingRules
from planner.domain.observation import Observation
from planner.domain.pool import Replicas
from planner.domain.reasons import ReasonCode
from tests.unit.planner.core.small_site import DECODE, PREFILL, D, deployment, planner, pool, traffic

GPUS = 8
LAST_OF_PROMPTS = 10
COUNTS = st.integers(1, 12)


def counts_after_a_flip(rules: ScalingRules) -> tuple[dict[str, int], set[ReasonCode]]:
    """Granted counts two ticks after long prompts gave way to long answers, and the reasons given for prefill."""
    pools = {name: pool(name, scale_down=rules, startup_s=60.0) for name in (PREFILL, DECODE)}
    config = planner(deployment(pools, max_gpus=GPUS))
    running = {PREFILL: Replicas(6, 6), DECODE: Replicas(2, 2)}
    state = initial_state(config, 1, 0.0, (), ())
    found: dict[str, int] = {}
    reasons: set[ReasonCode] = set()
    for tick in range(1, LAST_OF_PROMPTS + 3):
        mix = traffic(24.0, 6000.0, 50.0) if tick <= LAST_OF_PROMPTS else traffic(30.0, 300.0, 1500.0)
        state, plan = step(state, Observation({D: mix}), config, config.clock(30.0 * tick))
        decided = plan.deployments[D].pools
        found = {str(name): decided[name].granted for name in running}
        reasons |= {link.reason for link in decided[PREFILL].chain if tick > LAST_OF_PROMPTS}
    return found, reasons


def test_a_pool_that_is_short_takes_what_only_a_default_window_keeps() -> None:
    found, reasons = counts_after_a_flip(ScalingRules())
    held, why = counts_after_a_flip(ScalingRules(stabilization_window_s=300.0))
    assert found["decode"] > held["decode"]
    assert found["prefill"] < held["prefill"]
    assert sum(found.values()) <= GPUS
    assert {ReasonCode.STABILIZATION_DOWN, ReasonCode.GPU_BUDGET} <= reasons
    assert ReasonCode.STABILIZATION_DOWN in why


def test_what_is_left_over_stays_with_the_pool_whose_window_keeps_it() -> None:
    one = deployment(max_gpus=12)
    shares = bounds.gpu_shares(one, {PREFILL: 10, DECODE: 5}, {PREFILL: 10, DECODE: 2}, {PREFILL: 3})
    assert {name: limit.value for name, limit in shares.items()} == {PREFILL: 7}


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.integers(0, 12), st.integers(2, 24))
def test_shares_fit_and_none_falls_below_what_it_needs_for_a_window(
    prefill: int, decode: int, held_prefill: int, held_decode: int, needed: int, most: int
) -> None:
    counts, current = {PREFILL: prefill, DECODE: decode}, {PREFILL: held_prefill, DECODE: held_decode}
    wants = min(prefill, max(1, needed))
    shares = bounds.gpu_shares(deployment(max_gpus=most), counts, current, {PREFILL: wants})
    kept = {name: shares[name].value if name in shares else count for name, count in counts.items()}
    assert sum(kept.values()) <= max(most, 2)
    assert all(1 <= kept[name] <= counts[name] for name in counts)
    if wants + decode <= most:
        assert kept[DECODE] == decode
        assert kept[PREFILL] >= wants
