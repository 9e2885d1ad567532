"""The published cut to a power budget, against the formula as the power-aware planner guide prints it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from planner.core.allocation import proportional
from planner.core.intake import initial_state
from planner.core.step import step
from planner.domain.config import PlannerConfig, ScalingRules, Shortage, SiteConfig, SizingMode
from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId, SiteId
from planner.domain.observation import DeploymentObservation, GpuObservation, NodeObservation, Observation
from planner.domain.plan import Plan, PowerCut
from planner.domain.reasons import ReasonCode
from planner.domain.units import Milliwatts
from tests.unit.planner.core.small_site import CURVE, DECODE, PREFILL, SITE, D, SmallSite, deployment, pool, traffic

AT_ONCE = ScalingRules(stabilization_window_s=0.0)
INPUTS = 10_000
AT_A_TICK = 100


def printed(prefill: int, decode: int, prefill_limit: int, decode_limit: int, budget: int) -> tuple[int, int]:
    """``apply_power_limits`` of the guide, without its log and its annotations."""
    required_power = prefill * prefill_limit + decode * decode_limit
    if required_power <= budget:
        return prefill, decode
    scale_factor = budget / required_power
    return int(prefill * scale_factor), int(decode * scale_factor)


def test_the_cut_is_the_printed_formula_on_ten_thousand_inputs() -> None:
    rng = Random(20260109)
    cut = 0
    for _ in range(INPUTS):
        counts = {PREFILL: rng.randrange(0, 200), DECODE: rng.randrange(0, 200)}
        limits = rng.randrange(100, 1001), rng.randrange(100, 1001)
        budget = rng.randrange(100, 100_000)
        required = counts[PREFILL] * limits[0] * 1000 + counts[DECODE] * limits[1] * 1000
        found = proportional.share(counts, required, budget * 1000)
        expected = printed(counts[PREFILL], counts[DECODE], *limits, budget)
        assert (found[PREFILL], found[DECODE]) == expected
        cut += expected != (counts[PREFILL], counts[DECODE])
    assert INPUTS / 4 < cut < INPUTS


def fixed(watts: int, name: PoolId, gpus: int = 1) -> object:
    law = replace(CURVE, min_mw=100_000, max_mw=watts * 1000, useful_mw=watts * 1000)
    return pool(name, curve=law, gpus_per_replica=gpus, min_replicas=0, max_replicas=500, scale_down=AT_ONCE)


def a_tick(rng: Random) -> tuple[PlannerConfig, Observation, dict[DeploymentId, tuple[int, int, int]]]:
    """Many sites of one classic deployment each, with random loads, watts and budgets."""
    deployments, sites, seen, nodes, given = {}, {}, {}, {}, {}
    for index in range(AT_A_TICK):
        name, site = DeploymentId(f"d-{index}"), SiteId(f"s-{index}")
        watts = rng.randrange(150, 701), rng.randrange(150, 701)
        budget = rng.randrange(500, 20_000)
        pools = {PREFILL: fixed(watts[0], PREFILL), DECODE: fixed(watts[1], DECODE)}
        block = deployment(pools, sizing=SizingMode.CLASSIC, predictor="constant")  # type: ignore[arg-type]
        deployments[name] = replace(block, deployment=name, site=site)
        sites[site] = SiteConfig(
            site, Milliwatts(budget * 1000), shortage=Shortage.PROPORTIONAL, nodes=(f"n-{index}",), fallback_mw=None
        )
        seen[name] = traffic(rng.uniform(0.1, 400.0), isl=rng.uniform(50, 9000), osl=rng.uniform(10, 2000))
        node = NodeId(f"n-{index}")
        # GPUs that may be switched off entirely leave the whole budget to the workers, as the guide has it.
        gpus = {gpu: GpuObservation(gpu, 0, 0, 0, 700_000, 0, 700_000) for gpu in (GpuId(f"g-{index}"),)}
        nodes[node] = NodeObservation(node, gpus, 0.0, "boot", 0.0)
        given[name] = (*watts, budget)
    return PlannerConfig(deployments, sites), Observation(deployments=seen, nodes=nodes), given


@pytest.mark.long
def test_classic_sizing_with_fixed_caps_and_the_proportional_cut_is_the_guide_s_planner() -> None:
    """10,000 deployments through ``step``: the counts are the classic formulas', cut as printed."""
    rng = Random(7)
    cut = 0
    for _ in range(INPUTS // AT_A_TICK):
        config, observation, given = a_tick(rng)
        _, plan = step(initial_state(config, 1, 0.0, (), ()), observation, config, config.clock(0.0))
        for name, (prefill_limit, decode_limit, budget) in given.items():
            wanted = {at: one.wanted for at, one in plan.deployments[name].pools.items()}
            expected = printed(wanted[PREFILL], wanted[DECODE], prefill_limit, decode_limit, budget)
            link = plan.deployments[name].power_cut
            required = wanted[PREFILL] * prefill_limit + wanted[DECODE] * decode_limit
            assert (link is not None) == (required > budget)
            if link is not None:
                assert (link.after[PREFILL], link.after[DECODE]) == expected
                assert link.exceeded == f"Power budget exceeded: {required}W > {budget}W"
                assert link.scaling_down == (
                    f"Scaling down: prefill {wanted[PREFILL]}→{expected[0]}, decode {wanted[DECODE]}→{expected[1]}"
                )
                cut += 1
    assert INPUTS / 5 < cut < INPUTS


def guide(budget_watts: int, watts: int = 250, **changes: object) -> SmallSite:
    pools = {name: replace(fixed(watts, name), min_replicas=1) for name in (PREFILL, DECODE)}  # type: ignore[type-var]
    block = deployment(pools, **changes)  # type: ignore[arg-type]
    site = SiteConfig(SITE, Milliwatts(budget_watts * 1000), shortage=Shortage.PROPORTIONAL)
    found = SmallSite(PlannerConfig({D: block}, {SITE: site}), nodes=1, gpus_per_node=8)
    found.run_pods(prefill=1, decode=1)
    return found


def settled(found: SmallSite, seen: DeploymentObservation) -> Plan:
    for _ in range(4):
        plan = found.tick(seen)
        found.pass_time(30.0)
    return plan


def test_workers_get_the_fixed_watts_and_the_counts_are_cut_to_fit_beside_parked_gpus() -> None:
    """Eight GPUs in the budget, parked at 200 W each: 2,000 W leave 400 W above the parked caps."""
    w = guide(2000)
    plan = settled(w, traffic(200.0))
    pools = plan.deployments[D].pools
    assert {p.setpoint and p.setpoint.cap_mw for p in pools.values()} == {250_000}
    assert sum(p.granted for p in pools.values()) * 50 <= 400
    assert sum(w.caps.values()) <= 2_000_000
    assert {w.caps[gpu] for gpu in w.pods} == {250_000}
    assert ReasonCode.POWER_BUDGET in [note.reason for note in plan.deployments[D].notes]


def test_a_replica_counts_with_all_of_its_gpus() -> None:
    w = guide(2000)
    two = {name: replace(one, gpus_per_replica=2) for name, one in w.config.deployments[D].pools.items()}
    w.config = replace(w.config, deployments={D: replace(w.config.deployments[D], pools=two)})
    cut = settled(w, traffic(200.0)).deployments[D].power_cut
    assert isinstance(cut, PowerCut)
    assert cut.required_mw == sum(cut.before.values()) * 2 * 50_000 + 8 * 200_000


def test_min_replicas_act_after_the_cut() -> None:
    """``int(1 * 0.5)`` is 0 workers: ``min_replicas`` keeps one, with a reason."""
    w = guide(1700, watts=700)
    plan = settled(w, traffic(200.0))
    for one in plan.deployments[D].pools.values():
        assert one.granted == 1
        assert ReasonCode.MIN_REPLICAS in [link.reason for link in one.chain]
    assert sum(w.caps.values()) <= 1_700_000


def test_without_a_shortage_nothing_is_cut_and_nothing_is_noted() -> None:
    plan = settled(guide(5600), traffic(1.0))
    assert plan.deployments[D].power_cut is None
    assert not [note for note in plan.deployments[D].notes if note.reason is ReasonCode.POWER_BUDGET]
