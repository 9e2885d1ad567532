"""What must hold of ``step`` whatever the load does."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.intake import initial_state
from planner.core.state import PlannerState
from planner.core.step import step
from planner.domain.config import DeploymentConfig, PlannerConfig, PoolConfig, ScalingPolicy, ScalingRules, SizingMode
from planner.domain.observation import DeploymentObservation, Observation, PoolObservation, ScalingAckSeen
from planner.domain.plan import Plan
from planner.domain.pool import Replicas
from planner.domain.reading import NO_DATA, Sample
from planner.domain.reasons import ReasonCode
from tests.sizes_of_runs import examples
from tests.unit.planner.core.small_site import DECODE, PREFILL, D, deployment, planner, pool, traffic

INTERVAL_S = 30.0
rates = st.one_of(st.just(0.0), st.floats(0.01, 300.0))
lengths = st.floats(1.0, 20_000.0)
answers = st.floats(1.0, 4000.0)
seconds = st.sampled_from([None, 0.0, 30.0, 60.0, 300.0])
policies = st.builds(
    ScalingPolicy, st.sampled_from(["Pods", "Percent"]), st.integers(1, 100), st.sampled_from([30.0, 60.0, 120.0])
)
rules = st.builds(
    ScalingRules,
    seconds,
    st.lists(policies, max_size=2).map(tuple),
    st.sampled_from(["Max", "Min", "Disabled"]),
    st.sampled_from([0.0, 0.1]),
)


@st.composite
def pools(draw: st.DrawFn) -> dict[str, PoolConfig]:
    found = {}
    for name in (PREFILL, DECODE):
        least = draw(st.integers(0, 3))
        found[name] = pool(
            name,
            min_replicas=least,
            max_replicas=draw(st.integers(max(1, least), 40)),
            gpus_per_replica=draw(st.sampled_from([1, 2, 4])),
            max_step=draw(st.one_of(st.none(), st.integers(1, 6))),
            scale_up=draw(rules),
            scale_down=draw(rules),
        )
    return found  # type: ignore[return-value]


@st.composite
def configs(draw: st.DrawFn) -> DeploymentConfig:
    chosen = draw(pools())
    floors = sum(max(1, p.min_replicas) * p.gpus_per_replica for p in chosen.values())
    return deployment(
        chosen,  # type: ignore[arg-type]
        sizing=draw(st.sampled_from([SizingMode.SLA, SizingMode.SLA_LOAD])),
        ttft_ms=draw(st.floats(20.0, 5000.0)),
        itl_ms=draw(st.floats(5.0, 200.0)),
        max_gpus=draw(st.one_of(st.none(), st.integers(floors, floors + 60))),
    )


@st.composite
def intervals(draw: st.DrawFn) -> DeploymentObservation:
    if draw(st.integers(0, 9)) == 0:
        return DeploymentObservation(INTERVAL_S)
    seen = traffic(draw(rates), draw(lengths), draw(answers))
    queue = PoolObservation(Replicas(ready=draw(st.integers(0, 8))), Sample(draw(st.floats(0, 50))))
    cache = PoolObservation(Replicas(ready=draw(st.integers(0, 8))), kv_usage=Sample(draw(st.floats(0, 1))))
    return replace(
        seen,
        ttft_ms=draw(st.one_of(st.just(NO_DATA), st.floats(1, 1e5).map(Sample))),
        itl_ms=draw(st.one_of(st.just(NO_DATA), st.floats(0.1, 1e3).map(Sample))),
        pools={PREFILL: queue, DECODE: cache},
    )


def observed(state: PlannerState, seen: DeploymentObservation, *, acknowledged: bool = True) -> Observation:
    known = state.deployments[D]
    done = known.flow.decision_id if acknowledged else known.flow.scaled_decision_id
    return Observation({D: seen}, scaling_acks={D: ScalingAckSeen(D, known.flow.decision_id, done, "applied")})


def counts(plan: Plan) -> dict[str, int]:
    return {name: p.granted for name, p in plan.deployments[D].pools.items()}


@settings(max_examples=examples(25, 60), deadline=None)
@given(configs(), st.lists(st.tuples(intervals(), st.booleans()), min_size=1, max_size=25))
def test_no_limit_is_ever_broken(one: DeploymentConfig, course: list[tuple[DeploymentObservation, bool]]) -> None:
    config = planner(one)
    state = initial_state(config, 1, 0.0, (), ())
    for tick, (seen, acknowledged) in enumerate(course):
        state, plan = step(
            state, observed(state, seen, acknowledged=acknowledged), config, config.clock(tick * INTERVAL_S)
        )
        for order in plan.scaling:
            gpus = 0
            ran = sum(plan.deployments[D].pools[name].current * one.pools[name].gpus_per_replica for name in one.pools)
            cut = one.max_gpus is not None and ran > one.max_gpus
            for name, count in order.replicas.items():
                bounds = one.pools[name]
                before = plan.deployments[D].pools[name].current
                assert bounds.min_replicas <= count <= bounds.max_replicas
                if not cut and bounds.max_step is not None and bounds.min_replicas <= before <= bounds.max_replicas:
                    # Coming back from zero with a partner, and a budget's cut, may be the only larger steps.
                    assert abs(count - before) <= max(1, bounds.max_step)
                gpus += count * bounds.gpus_per_replica
            assert one.max_gpus is None or gpus <= one.max_gpus
            assert len({count == 0 for count in order.replicas.values()}) == 1, "pools leave and reach zero together"


@settings(max_examples=examples(25, 60), deadline=None)
@given(configs(), st.lists(intervals(), min_size=1, max_size=15))
def test_missing_metrics_change_nothing(one: DeploymentConfig, course: list[DeploymentObservation]) -> None:
    config = planner(one)
    state = initial_state(config, 1, 0.0, (), ())
    for tick, seen in enumerate(course):
        state, _ = step(state, observed(state, seen), config, config.clock(tick * INTERVAL_S))
        blind = DeploymentObservation(INTERVAL_S)
        after, held = step(state, observed(state, blind), config, config.clock((tick + 0.5) * INTERVAL_S))
        assert not held.scaling
        assert counts(held) == {name: p.current for name, p in held.deployments[D].pools.items()}
        assert all(p.chain[-1].reason is ReasonCode.METRICS_MISSING for p in held.deployments[D].pools.values())
        assert after.deployments[D].flow.decision_id == state.deployments[D].flow.decision_id


@settings(max_examples=examples(20, 40), deadline=None)
@given(configs(), st.lists(intervals(), min_size=1, max_size=10))
def test_the_same_inputs_give_the_same_plan(one: DeploymentConfig, course: list[DeploymentObservation]) -> None:
    config = planner(one)
    first = second = initial_state(config, 1, 0.0, (), ())
    for tick, seen in enumerate(course):
        observation = observed(first, seen)
        first, plan = step(first, observation, config, config.clock(tick * INTERVAL_S))
        second, again = step(second, observation, config, config.clock(tick * INTERVAL_S))
        assert plan == again
        assert first == second


def wanted(config: PlannerConfig, seen: DeploymentObservation) -> dict[str, int]:
    _, plan = step(initial_state(config, 1, 0.0, (), ()), Observation({D: seen}), config, config.clock(0.0))
    return {name: p.wanted for name, p in plan.deployments[D].pools.items()}


@settings(max_examples=examples(60, 150), deadline=None)
@given(st.floats(0.01, 200.0), st.floats(1.0, 3.0), lengths, answers)
def test_more_load_never_wants_less(rate: float, more: float, isl: float, osl: float) -> None:
    low, high = (wanted(planner(), traffic(r, isl, osl)) for r in (rate, rate * more))
    assert all(high[name] >= low[name] for name in low)


@settings(max_examples=examples(60, 150), deadline=None)
@given(st.floats(0.01, 200.0), lengths, answers, st.floats(30.0, 5000.0), st.floats(6.0, 200.0), st.floats(1.0, 4.0))
def test_tighter_targets_never_want_less(
    rate: float, isl: float, osl: float, ttft_ms: float, itl_ms: float, looser: float
) -> None:
    tight = planner(deployment(ttft_ms=ttft_ms, itl_ms=itl_ms))
    loose = planner(deployment(ttft_ms=ttft_ms * looser, itl_ms=itl_ms * looser))
    seen = traffic(rate, isl, osl)
    low, high = wanted(loose, seen), wanted(tight, seen)
    assert all(high[name] >= low[name] for name in low)


@settings(max_examples=examples(20, 50), deadline=None)
@given(rates, lengths, answers, st.integers(1, 40), st.integers(1, 40), st.sampled_from([None, 0.0, 300.0]))
def test_a_constant_load_comes_to_rest_and_stays(
    rate: float, isl: float, osl: float, prefill: int, decode: int, window_s: float | None
) -> None:
    """Without a window too: until gaps were seen, what is not wanted is kept no longer than HPA keeps it."""
    down = ScalingRules(stabilization_window_s=window_s)
    one = deployment({name: pool(name, scale_down=down) for name in (PREFILL, DECODE)})
    config = planner(one)
    state = initial_state(config, 1, 0.0, (), ())
    running = {PREFILL: PoolObservation(Replicas(prefill)), DECODE: PoolObservation(Replicas(decode))}
    seen = replace(traffic(rate, isl, osl), pools=running)
    decided_at = []
    for tick in range(40):
        state, plan = step(state, observed(state, seen), config, config.clock(tick * INTERVAL_S))
        decided_at += [tick] if plan.scaling else []
    rest = 5 + round(one.pools[PREFILL].down_window_s / INTERVAL_S)
    assert all(tick <= rest for tick in decided_at), decided_at
    assert len(decided_at) <= 2


@settings(max_examples=examples(25, 60), deadline=None)
@given(st.lists(rates, min_size=2, max_size=60), st.sampled_from([60.0, 120.0, 300.0]))
def test_scale_down_is_never_faster_than_its_window(course: list[float], window_s: float) -> None:
    down = ScalingRules(stabilization_window_s=window_s)
    config = planner(deployment({name: pool(name, scale_down=down) for name in (PREFILL, DECODE)}))
    state = initial_state(config, 1, 0.0, (), ())
    asked: dict[str, list[tuple[float, int]]] = {PREFILL: [], DECODE: []}
    for tick, rate in enumerate(course):
        now_s = tick * INTERVAL_S
        state, plan = step(state, observed(state, traffic(rate)), config, config.clock(now_s))
        for name, p in plan.deployments[D].pools.items():
            asked[name].append((now_s, p.wanted))
            if p.granted < p.current:
                recent = [count for at, count in asked[name] if at > now_s - window_s]
                assert p.granted >= min(p.current, max(recent))
