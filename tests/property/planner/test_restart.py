"""A killed planner decides what an uninterrupted one decides, to the tick: in virtual time, through the real records.

Both planners see the same recorded observations. The killed one knows only what the streams would hold: its last
decision and the plan records, both as bytes, and for missed ticks what the metrics' source still has.
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from bus_schemas import codec, v1
from planner.adapters import from_wire, to_wire
from planner.core.forecast.seasonal import Seasonal
from planner.core.intake import initial_state
from planner.core.state import PlannerState
from planner.core.step import step
from planner.domain.config import PlannerConfig, ScalingPolicy, ScalingRules
from planner.domain.ids import DeploymentId
from planner.domain.observation import DeploymentObservation, Observation, PoolObservation, ScalingAckSeen
from planner.domain.plan import Plan
from planner.domain.pool import Replicas
from planner.domain.reading import Missing, MissingReason, Sample
from planner.domain.request import ObservedLoad
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.recorder import Recorder
from planner.runtime.restore import Restore, joined
from tests.integration.planner.stage import DECODE, NAME, PREFILL, config
from tests.sizes_of_runs import examples

TICK_S = 30.0
TICKS = 160
Counts = tuple[int, int]


def site_config(
    policies: Sequence[ScalingPolicy] = (), predictor: str = "blend", slo_share: float | None = None
) -> PlannerConfig:
    """One deployment whose load makes it move; no power, so that counts alone are compared."""
    base = config(interval_s=TICK_S, scale=1.0)
    deployment = base.deployments[NAME]
    rules = ScalingRules(policies=tuple(policies))
    pools = {name: replace(pool, max_replicas=12, scale_up=rules) for name, pool in deployment.pools.items()}
    return replace(
        base, deployments={NAME: replace(deployment, pools=pools, predictor=predictor, slo_share=slo_share)}, sites={}
    )


def seen_at(tick: int, chance: random.Random) -> DeploymentObservation:
    """A swing with scatter, latencies that teach corrections, and readings that fail now and then."""
    rate = 60.0 + 50.0 * math.sin(tick / 9.0) + chance.uniform(-8.0, 8.0)
    gone = chance.random() < 0.03
    busy = rate / 40.0
    return DeploymentObservation(
        interval_s=TICK_S,
        requests=Missing(MissingReason.STALE) if gone else Sample(rate * TICK_S),
        isl_tokens=Sample(900.0 + chance.uniform(-100.0, 100.0)),
        osl_tokens=Sample(200.0 + chance.uniform(-30.0, 30.0)),
        ttft_ms=Sample(80.0 + 60.0 * busy),
        itl_ms=Sample(9.0 + 4.0 * busy),
        isl_cv2=Sample(chance.uniform(0.3, 1.5)),
        ttft_within=Sample(1.0 - 0.03 * busy),
        itl_within=Sample(1.0 - 0.01 * busy),
    )


@dataclass
class Stream:
    """What the bus holds, as bytes; and the observations that the metrics' source would still tell."""

    records: list[tuple[datetime, bytes]] = field(default_factory=list)
    decision: bytes | None = None

    def record(self, record: v1.PlanRecord) -> None:
        self.records.append((record.time, codec.encode(record)))


@dataclass
class RestartedPlanner:
    """One life of a planner in virtual time."""

    config: PlannerConfig
    stream: Stream
    source: Mapping[int, DeploymentObservation]
    state: PlannerState
    recorder: Recorder
    epoch: int = 1

    @classmethod
    def born(
        cls, settings: PlannerConfig, stream: Stream, source: Mapping[int, DeploymentObservation], tick: int
    ) -> RestartedPlanner:
        """Half a tick before ``tick``, from the streams alone; a missed tick is decided at once."""
        now_s = (tick - 0.5) * TICK_S
        last = []
        if stream.decision is not None:
            decision = codec.decode(stream.decision)
            assert isinstance(decision, v1.ScalingDecision)
            # The actuator carried it out and acknowledged it.
            name, flow = from_wire.last_decision(decision, None)
            last = [(name, replace(flow, scaled_decision_id=decision.decision_id))]
        state = initial_state(settings, tick, now_s, last, ())

        async def reread(_name: DeploymentId, then_s: float) -> DeploymentObservation | None:
            return source[round(then_s / TICK_S)]

        recall = Restore(settings, tick * TICK_S, reread)
        term: Any = MemoryTerm(stream)
        for name, old in asyncio.run(recall.run(term, now_s, 0.0)).items():
            state = joined(state, name, old, settings.load_time_scale)
        planner = cls(settings, stream, source, state, Recorder(None, settings, lambda: 0.0, keep_journal=True))  # type: ignore[arg-type]
        if recall.late:
            planner.tick(tick - 1, late_s=TICK_S / 2)
        return planner

    def tick(self, tick: int, *, recorded: bool = True, late_s: float = 0.0) -> Plan:
        """Observe, decide, publish, and record unless killed in between."""
        seen_s = tick * TICK_S
        now_s = seen_s + late_s
        acks = {}
        known = self.state.deployments[NAME]
        if known.flow.decision_id >= 0:
            acks[NAME] = ScalingAckSeen(NAME, known.flow.decision_id, known.flow.decision_id, "applied")
        observation = Observation({NAME: self.source[tick]}, scaling_acks=acks)
        self.state, plan = step(self.state, observation, self.config, self.config.clock(now_s, seen_s))
        for order in plan.scaling:
            decision = to_wire.scaling_decision(
                order, self.config.deployments[NAME], epoch=1, incarnation="one", at=to_wire.utc(now_s)
            )
            self.stream.decision = codec.encode(decision)
        if recorded:
            for record in self.recorder.records(
                DecisionEvent(observation, plan, self.state, now_s, True, 1, seen_s=seen_s)
            ):
                self.stream.record(record)
        return plan


@dataclass
class MemoryTerm:
    """The part of a term that recalling needs: records as the stream keeps them."""

    stream: Stream

    async def records(self, since: datetime) -> list[v1.PlanRecord]:
        kept = [codec.decode(body) for at, body in self.stream.records if at >= since]
        return [record for record in kept if isinstance(record, v1.PlanRecord)]


def recorded(seed: int, settings: PlannerConfig) -> tuple[dict[int, DeploymentObservation], list[Counts]]:
    """A run that nothing interrupts: what it saw, replicas included, and what was in force after each tick."""
    chance = random.Random(seed)
    source: dict[int, DeploymentObservation] = {}
    planner = RestartedPlanner(
        settings,
        Stream(),
        source,
        initial_state(settings, 1, 0.0, (), ()),
        Recorder(None, settings, lambda: 0.0, keep_journal=True),  # type: ignore[arg-type]
    )
    counts: Counts = (1, 1)
    found = [counts]
    for tick in range(1, TICKS):
        running = {PREFILL: counts[0], DECODE: counts[1]}
        pools = {pool: PoolObservation(Replicas(ready=count), complete=True) for pool, count in running.items()}
        source[tick] = replace(seen_at(tick, chance), pools=pools)
        planner.tick(tick)
        counts = in_force(planner.stream)
        found.append(counts)
    return source, found


@functools.cache
def calm_run(seed: int, predictor: str | None = None) -> tuple[dict[int, DeploymentObservation], list[Counts]]:
    """`recorded` with the usual settings: each is compared with many interrupted runs."""
    return recorded(seed, site_config() if predictor is None else site_config(predictor=predictor))


def in_force(stream: Stream) -> Counts:
    """The last decision's counts."""
    if stream.decision is None:
        return (1, 1)
    decision = codec.decode(stream.decision)
    assert isinstance(decision, v1.ScalingDecision)
    return decision.pools[PREFILL].replicas, decision.pools[DECODE].replicas


def interrupted(
    settings: PlannerConfig, source: Mapping[int, DeploymentObservation], kills: Mapping[int, str]
) -> list[Counts]:
    """Counts in force after each tick. ``kills``: at which tick, and whether it died before seeing it (``unseen``),
    between publishing and recording (``unrecorded``), or after both (``recorded``).
    """
    stream = Stream()
    planner = RestartedPlanner.born(settings, stream, source, 1)
    found: list[Counts] = [(1, 1)]
    for tick in range(1, TICKS):
        how = kills.get(tick)
        if how != "unseen":
            planner.tick(tick, recorded=how != "unrecorded")
        found.append(in_force(stream))
        if how is not None:
            planner = RestartedPlanner.born(settings, stream, source, tick + 1)
    return found


def beyond_a_tick(calm: Sequence[Counts], rough: Sequence[Counts]) -> list[tuple[int, Counts, Sequence[Counts]]]:
    """Ticks at which the killed planner stood nowhere that the other stood within one tick."""
    near = [calm[max(0, tick - 1) : tick + 2] for tick in range(len(calm))]
    return [
        (tick, rough[tick], near[tick])
        for tick in range(len(calm))
        if any(rough[tick][pool] not in {counts[pool] for counts in near[tick]} for pool in (0, 1))
    ]


def different(calm: Sequence[Counts], rough: Sequence[Counts], kills: Mapping[int, str]) -> list[int]:
    """Ticks at which the killed planner stood elsewhere; at a missed one it must stand where it stood before."""
    return [t for t in range(TICKS) if rough[t] != calm[t - 1 if kills.get(t) == "unseen" else t]]


HOWS = st.sampled_from(["unseen", "unrecorded", "recorded"])
FIRST = 2
"""Who dies before its first record leaves nothing to be remembered by."""
TWENTY = st.dictionaries(st.integers(FIRST, TICKS - 2), HOWS, min_size=20, max_size=20)
# A case takes a tenth of a second: shrinking one takes minutes, and a set of kills says enough as it is.
SOME = settings(max_examples=examples(6, 15), deadline=None, phases=[Phase.explicit, Phase.generate])


@SOME
@given(st.integers(0, 3), TWENTY)
@example(0, dict.fromkeys(range(40, 60), "unseen"))
@example(1, dict.fromkeys(range(2, 158, 8), "unseen"))
def test_twenty_kills_change_no_decision_but_those_of_ticks_that_no_planner_saw(
    seed: int, kills: dict[int, str]
) -> None:
    source, calm = calm_run(seed)
    rough = interrupted(site_config(), source, kills)
    assert len(set(calm)) > 10, "the load must make the planner move"
    assert different(calm, rough, kills) == []
    assert beyond_a_tick(calm, rough) == []


@pytest.mark.parametrize("predictor", ["constant", "ewma", "holt", "kalman", "kalman+log1p", "blend+day"])
@settings(SOME, max_examples=examples(2, 3))
@given(st.integers(0, 3), TWENTY)
def test_whatever_the_forecast(predictor: str, seed: int, kills: dict[int, str]) -> None:
    settings = site_config(predictor=predictor)
    source, calm = calm_run(seed, predictor)
    rough = interrupted(settings, source, kills)
    assert different(calm, rough, kills) == []


def test_a_promised_share_is_held_across_kills() -> None:
    settings = site_config(slo_share=0.96)
    source, calm = recorded(1, settings)
    assert calm != recorded(1, site_config())[1], "the promise must move decisions"
    kills = {tick: ("unseen", "unrecorded", "recorded")[tick % 3] for tick in range(FIRST, TICKS - 2, 10)}
    assert different(calm, interrupted(settings, source, kills), kills) == []


@SOME
@given(st.integers(0, 3), st.integers(FIRST, TICKS - 2), HOWS)
@example(0, 51, "unseen")
@example(1, 58, "unseen")
@example(2, 49, "unseen")
@example(3, 54, "unseen")
def test_under_rate_policies_a_kill_moves_a_change_by_a_tick_at_most(seed: int, tick: int, how: str) -> None:
    """A decision half a tick late enters and leaves a policy's period half a tick late.

    Where the tick that a change moved to has no reading, or no wish any more, the change waits for the next one: by
    the one pod of the policy the killed planner may stand lower, and never higher.
    """
    settings = site_config([ScalingPolicy("Pods", 1, 60.0)])
    source, calm = recorded(seed, settings)
    rough = interrupted(settings, source, {tick: how})
    late = beyond_a_tick(calm, rough)
    assert late == [] or how == "unseen", "who had seen the tick is late for nothing"
    assert [
        (tick, stood, near)
        for tick, stood, near in late
        if any(not min(c[p] for c in near) - 1 <= stood[p] <= max(c[p] for c in near) for p in (0, 1))
    ] == []
    assert rough[-1] == calm[-1], "nothing of it stays"


def test_forecasts_of_other_settings_learn_afresh_from_what_was_seen() -> None:
    """A checkpoint of another model is not used: forecasts are taught the observations instead."""
    source, _ = recorded(0, site_config())
    stream = Stream()
    planner = RestartedPlanner.born(site_config(), stream, source, 1)
    for tick in range(1, 60):
        planner.tick(tick)
    again = RestartedPlanner.born(site_config(), stream, source, 60).state.deployments[NAME].learned
    assert again.forecasts == planner.state.deployments[NAME].learned.forecasts
    other = RestartedPlanner.born(site_config(predictor="ewma"), stream, source, 60).state.deployments[NAME].learned
    assert other.forecasts["request_rate_per_s"].model.name == "ewma"
    assert 0 < len(other.forecasts["request_rate_per_s"].errors) < len(again.forecasts["request_rate_per_s"].errors)


def test_forecasts_of_other_settings_keep_what_past_days_taught() -> None:
    source, _ = recorded(0, site_config())
    stream = Stream()
    planner = RestartedPlanner.born(site_config(), stream, source, 1)
    for tick in range(1, 60):
        planner.tick(tick)
    past = tuple(ObservedLoad(900.0 * quarter - 30.0, 900.0, 54_000.0, 900.0, 200.0) for quarter in range(-95, 1))
    daily = site_config(predictor="blend+day")
    deployment = replace(daily.deployments[NAME], past_load=past)
    daily = replace(daily, deployments={NAME: deployment})
    found = RestartedPlanner.born(daily, stream, source, 60).state.deployments[NAME].learned.forecasts
    rate = found["request_rate_per_s"]
    assert isinstance(rate.model, Seasonal)
    assert sum(level == 60.0 for level in rate.model.shape) > 90, "the past day"
    assert len(rate.errors) > 0, "and the ticks since"
