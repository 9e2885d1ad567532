"""Measured draws change only the expected use of a pool: no watt is charged, freed or published because of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.power.p_u_estimator import HIGHEST, LOWEST, Drawn, Estimate, LearnedPower
from planner.core.power.site_state import charged_mw, gpus_mw
from planner.core.state import PlannerState
from planner.core.step import react, step
from planner.domain.config import PoolConfig
from planner.domain.ids import GpuId, PoolId
from planner.domain.observation import DeploymentObservation, GpuObservation, Observation, PoolObservation
from planner.domain.pool import Replicas
from planner.domain.reading import Sample
from planner.domain.reasons import ReasonCode
from tests.sizes_of_runs import examples
from tests.unit.planner.core.small_site import (
    CURVE,
    DECODE,
    PREFILL,
    SITE,
    D,
    SmallSite,
    deployment,
    planner,
    pool,
    traffic,
)

INTERVAL_S = 30.0


@dataclass
class Drawing(SmallSite):
    """A world whose GPUs draw ``draw_mw`` at work, at most their cap, and whose engines tell how full they are."""

    draw_mw: int = 450_000
    running: float = 40.0
    """Sequences that each decode replica runs."""
    queued: float = 0.0
    """Prompts that wait for each prefill replica."""
    starting: int = 0
    silent: bool = False

    def observation(self, seen: DeploymentObservation | None, *rest: object) -> Observation:
        found = super().observation(seen, *rest)  # type: ignore[arg-type]
        if seen is None:
            return replace(found, nodes={}) if self.silent else found
        prefill, decode = self.count(PREFILL), self.count(DECODE)
        pools = {
            PREFILL: PoolObservation(
                Replicas(ready=prefill - self.starting, starting=self.starting),
                queued_requests=Sample(self.queued * prefill),
            ),
            DECODE: PoolObservation(Replicas(ready=decode), running_requests=Sample(self.running * decode)),
        }
        told = replace(found.deployments[D], pools=pools)
        return replace(found, deployments={D: told}, nodes={} if self.silent else found.nodes)

    def _gpu(self, gpu: GpuId) -> GpuObservation:
        seen = super()._gpu(gpu)
        return replace(seen, draw_mw=min(self.draw_mw, self.caps[gpu])) if seen.pool is not None else seen

    def ticks(self, count: int, rate: float = 5.0) -> None:
        for _ in range(count):
            self.tick(traffic(rate))
            self.pass_time(INTERVAL_S)

    def drawn(self, name: PoolId) -> Drawn:
        return self.state.deployments[D].learned.draws.get(name, Drawn())


def world(budget_mw: int = 8 * CURVE.max_mw, **changes: Any) -> Drawing:
    pools = {name: pool(name, max_replicas=3, **changes) for name in (PREFILL, DECODE)}
    found = Drawing(planner(deployment(pools), budget_mw=budget_mw), nodes=1, gpus_per_node=8)
    found.run_pods(prefill=1, decode=1)
    return found


def learned_as(state: PlannerState, shares: tuple[float, float]) -> PlannerState:
    """The same state, had draws taught these multiples of the assumed P_u."""
    drawn = {
        name: Drawn(LearnedPower({5: Estimate(share * CURVE.p_u_mw, 10_000.0, 50.0, 0.0)}), bucket=5, batch=32.0)
        for name, share in zip((PREFILL, DECODE), shares, strict=True)
    }
    known = replace(state.deployments[D], learned=replace(state.deployments[D].learned, draws=drawn))
    return replace(state, deployments={D: known})


shares = st.tuples(st.floats(LOWEST, HIGHEST), st.floats(LOWEST, HIGHEST))
budgets = st.integers(8 * 350_000, 8 * CURVE.max_mw)


@settings(max_examples=examples(15, 40), deadline=None)
@given(shares, shares, budgets, st.floats(0.5, 60.0))
def test_what_was_learned_changes_what_is_asked_and_never_what_is_charged(
    one: tuple[float, float], other: tuple[float, float], budget_mw: int, rate: float
) -> None:
    w = world(budget_mw)
    w.ticks(2)
    between = w.observation(None)
    after = [react(learned_as(w.state, each), between, w.config, w.config.clock(w.now_s)) for each in (one, other)]
    assert after[0][0].power == after[1][0].power
    assert after[0][1].power == after[1][1].power
    seen = w.observation(traffic(rate))
    for each in (one, other):
        state, plan = step(learned_as(w.state, each), seen, w.config, w.config.clock(w.now_s))
        assert charged_mw(state.power[SITE]) <= gpus_mw(state.power[SITE], w.config.sites[SITE], w.now_s)
        assert plan.sites[SITE].frozen == ()


@settings(max_examples=examples(10, 25), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 900_000), st.floats(0.5, 60.0), st.floats(0.0, 300.0)), max_size=8), budgets)
def test_whatever_gpus_draw_their_caps_keep_to_the_budget(
    ticks: list[tuple[int, float, float]], budget_mw: int
) -> None:
    w = world(budget_mw)
    w.ticks(2)
    for draw_mw, rate, running in ticks:
        w.draw_mw, w.running = draw_mw, running
        plan = w.tick(traffic(rate))
        assert sum(w.caps.values()) <= budget_mw
        assert plan.sites[SITE].frozen == ()
        w.pass_time(10.0)
        assert sum(w.caps.values()) <= budget_mw


def test_a_busy_decode_pool_teaches_and_the_tick_says_so() -> None:
    w = world()
    w.draw_mw = 320_000
    w.ticks(80)
    power = w.tick(traffic(5.0)).deployments[D].pools[DECODE].power
    assert power is not None
    assert power.assumed_p_u_mw == CURVE.p_u_mw
    assert power.p_u_mw == pytest.approx(320_000, rel=0.05)
    assert power.drawn_mw is not None
    assert power.drawn_mw == pytest.approx(power.expected_mw, rel=0.1)
    plan = w.tick(traffic(5.0))
    (note,) = (note for note in plan.deployments[D].notes if note.reason is ReasonCode.P_U_LEARNED)
    assert note.sentence.startswith("decode: P_u")


def test_switched_off_the_assumed_curve_holds() -> None:
    w = world(learn_power=False)
    w.ticks(20)
    power = w.tick(traffic(5.0)).deployments[D].pools[DECODE].power
    assert power is not None
    assert power.p_u_mw == CURVE.p_u_mw
    assert power.drawn_mw is not None
    assert not w.drawn(DECODE).learned.estimates


@pytest.mark.parametrize(("running", "queued"), [(0.5, 0.0), (1.0, 0.0)])
def test_engines_with_pauses_teach_no_less(running: float, queued: float) -> None:
    w = world()
    w.running, w.queued, w.draw_mw = running, queued, 200_000
    w.ticks(20)
    assert not any(w.drawn(name).learned.estimates for name in (PREFILL, DECODE))


def test_a_prefill_pool_teaches_less_only_while_prompts_wait_for_all_of_it() -> None:
    w = world()
    w.draw_mw = 250_000
    w.ticks(10, rate=200.0)
    assert not w.drawn(PREFILL).learned.estimates, "by rate and profile it is busy, but nothing waits"
    w.queued = 3.0
    w.ticks(10, rate=200.0)
    assert w.drawn(PREFILL).learned.p_u_mw(0, CURVE) < 0.9 * CURVE.p_u_mw


def test_a_pool_that_starts_up_or_has_no_telemetry_teaches_nothing() -> None:
    w = world()
    w.queued, w.draw_mw = 3.0, 250_000
    w.ticks(3, rate=200.0)
    before = w.drawn(PREFILL).learned
    w.starting = 1
    w.ticks(3, rate=200.0)
    assert w.drawn(PREFILL).learned == before
    w.starting, w.silent = 0, True
    w.tick(traffic(200.0))
    heard = w.drawn(PREFILL).learned
    w.ticks(3, rate=200.0)
    assert w.drawn(PREFILL).learned == heard, "the same reading again is not new evidence"


def test_pools_without_figures_in_the_configuration_are_no_trouble() -> None:
    w = world()
    w.ticks(5)
    only: dict[object, PoolConfig] = {PREFILL: w.config.deployments[D].pools[PREFILL]}
    w.config = replace(w.config, deployments={D: replace(w.config.deployments[D], pools=only)})  # type: ignore[arg-type]
    plan = w.tick(traffic(5.0))
    assert set(plan.deployments[D].pools) == {PREFILL}
