"""Peers that share out watts never create any, and move them where their rule says."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.adapters.traces import Trace
from planner.sim.cluster.plant import ClusterSpec
from planner.sim.cluster.sim_gpu import SimGpuReading
from planner.sim.evaluation.simulation import SimulationRun, simulate
from planner.sim.policies.catalogue import UnknownPolicyError, make
from planner.sim.policies.watt_movers import steered
from planner.sim.workload.generated import ANSWER_HEAVY, PROMPT_HEAVY, Figures, flipping
from planner.sim.workload.scenario import BudgetSteps, Scenario, card_of, disaggregated
from tests.unit.planner.sim.small_plants import profile

STEPS = BudgetSteps(((0.0, 2_400_000), (300.0, 1_600_000), (450.0, 2_000_000)))
NEW = ("static:3p3d+steer", "static:3p3d+mover:50", "static:3p3d+even:0.8", "static:3p3d+roles:300/250")


def load(*mixes: tuple[Figures, float]) -> Trace:
    return Trace.of("flips", itertools.takewhile(lambda r: r.t_s < 600.0, flipping(3, mixes, 200.0)))


def scenario(trace: Trace) -> Scenario:
    engines = profile(max_batched=8192)
    pools = disaggregated(engines, "h200", startup_s=20.0, start=(3, 3))
    return Scenario(trace, engines, ClusterSpec(1, 6, card_of("h200")), pools, 800.0, 25.0, budget=STEPS)


class ReadEachSecond:
    """A policy whose run is read every second, after what happens at that instant."""

    name = "watched"

    def __init__(self, policy: str) -> None:
        self.policy = make(policy)
        self.seen: list[tuple[float, list[SimGpuReading]]] = []

    def start_replicas(self, world: Scenario) -> Mapping[str, int]:
        return self.policy.start_replicas(world)

    def attach(self, run: SimulationRun) -> None:
        self.policy.attach(run)
        run.plant.events.at(0.5, self._sample, run)

    def _sample(self, run: SimulationRun) -> None:
        self.seen.append((run.now_s, run.plant.readings()))
        if not run.over:
            run.plant.events.at(run.now_s + 1.0, self._sample, run)


def watched(world: Scenario, name: str) -> list[tuple[float, list[SimGpuReading]]]:
    policy = ReadEachSecond(name)
    simulate(world, policy)
    return policy.seen


@pytest.mark.parametrize("name", ["static:3p3d+steer", "static:3p3d+mover:50"])
def test_the_limits_of_a_mover_never_add_up_to_more_than_the_budget(name: str) -> None:
    seen = watched(scenario(load((PROMPT_HEAVY, 6.0), (ANSWER_HEAVY, 8.0))), name)
    # A mover sets limits at its own beat: a cut counts from the next one.
    over = [(t_s, sum(r.enforced_mw for r in gpus)) for t_s, gpus in seen if not 0 <= (t_s - 300.0) < 6.0]
    assert all(mw <= STEPS.at(t_s) for t_s, mw in over)
    assert len({tuple(r.enforced_mw for r in gpus) for _, gpus in seen}) > 3


def test_a_mover_gives_late_prompts_watts_first_and_then_a_gpu() -> None:
    seen = watched(scenario(load((PROMPT_HEAVY, 14.0))), "static:3p3d+mover:50")
    by_pool = [{r.pool: r.enforced_mw for r in gpus} for _, gpus in seen]
    more = [number for number, caps in enumerate(by_pool) if caps.get("prefill", 0) > caps.get("decode", 0)]
    grown = [number for number, (_, gpus) in enumerate(seen) if sum(r.pool == "prefill" for r in gpus) > 3]
    assert more
    assert grown
    assert more[0] < grown[0]


def test_steering_gives_the_watts_of_idle_gpus_to_busy_ones() -> None:
    seen = watched(scenario(load((ANSWER_HEAVY, 6.0))), "static:3p3d+steer")
    last = {r.gpu: r for r in seen[290][1]}
    even = STEPS.at(0.0) // 6
    idle = [r.enforced_mw for r in last.values() if r.pool == "prefill"]
    assert min(idle) < even


@given(st.lists(st.tuples(st.integers(200_000, 700_000), st.floats(0, 1)), min_size=1, max_size=9))
def test_steered_limits_are_a_budget_divided(gpus: list[tuple[int, float]]) -> None:
    readings = [
        SimGpuReading(f"g{n}", "node", cap, cap, int(cap * share), 0, 0, "decode", "w", False)
        for n, (cap, share) in enumerate(gpus)
    ]
    used = {reading.gpu: float(reading.draw_mw) for reading in readings}
    budget = sum(cap for cap, _ in gpus)
    caps = steered(readings, used, budget, 0.95, 1.1)
    assert set(caps) == set(used)
    assert sum(caps.values()) <= budget
    assert all(mw >= 0 for mw in caps.values())


@pytest.mark.parametrize(("name", "prefill_mw", "decode_mw"), [(NEW[2], 560_000, 560_000), (NEW[3], 300_000, 250_000)])
def test_fixed_caps_hold_and_limit_the_fleet_to_what_the_smallest_budget_feeds(
    name: str, prefill_mw: int, decode_mw: int
) -> None:
    seen = watched(scenario(load((PROMPT_HEAVY, 4.0))), name)
    caps = {r.pool: r.enforced_mw for _, gpus in seen[1:] for r in gpus if r.pool}
    assert caps == {"prefill": prefill_mw, "decode": decode_mw}
    held = [r for r in seen[-1][1] if r.pool]
    idle_mw = (6 - len(held)) * card_of("h200").idle_mw
    assert sum(r.enforced_mw for r in held) + idle_mw <= 1_600_000
    assert len(held) >= 2


@pytest.mark.parametrize("name", ["hpa+mover:50", "static:2p2d+even:1.5", "static:2p2d+roles:300", "static:2p2d+often"])
def test_an_unknown_rule_is_named(name: str) -> None:
    with pytest.raises(UnknownPolicyError, match="no way to cap is called"):
        make(name)


def test_a_mix_flips_and_repeats() -> None:
    first, again = (load((PROMPT_HEAVY, 6.0), (ANSWER_HEAVY, 8.0)) for _ in range(2))
    assert list(first) == list(again)
    assert all(a.t_s <= b.t_s for a, b in itertools.pairwise(first))
    prompts = [r.isl for r in first if r.t_s < 200.0]
    answers = [r.isl for r in first if 200.0 <= r.t_s < 400.0]
    assert sum(prompts) / len(prompts) > 5 * sum(answers) / len(answers)
    with pytest.raises(ValueError, match="a mix needs"):
        next(flipping(1, ()))
