"""What waits when new replicas serve: sized for in prefill, and in decode, which takes its answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.performance.engine_model import engine
from planner.core.sizing import load_forecast, prefill_station, sla
from planner.core.sizing.options import PoolOptions
from planner.core.sizing.sized_load import Corrections, SizedLoad
from planner.domain.ids import PoolId
from planner.domain.observation import PoolObservation
from planner.domain.plan import Forecast
from planner.domain.pool import Replicas
from planner.domain.reasons import ReasonCode
from tests.unit.planner.core.small_site import DECODE, PREFILL, PROFILE, deployment, pool, traffic

ENGINE = engine(PROFILE)
CONFIG = deployment({PREFILL: pool(PREFILL, max_replicas=500), DECODE: pool(DECODE, max_replicas=500)})
COST_S = 0.065
"""Engine time of a prompt of 3000 tokens, roughly."""
LOAD = SizedLoad(40.0, 3000.0, 150.0, rates=(40.0,), serving=1.0, lead_s=60.0, interval_s=30.0)


def options(load: SizedLoad, name: PoolId = PREFILL) -> PoolOptions:
    found = sla.options(CONFIG, CONFIG.pools[name], ENGINE, load, Corrections())
    assert found is not None
    return found


def waiting(load: SizedLoad) -> float:
    assert ENGINE.prefill is not None
    queue = prefill_station.station(ENGINE.prefill, load, 0.95, 1.0)
    return prefill_station.waiting_at_help(queue, load)


def test_what_arrives_beyond_what_serves_waits_for_the_new_replicas() -> None:
    grown = waiting(LOAD)
    assert grown == pytest.approx((40.0 - 1.0 / COST_S) * 60.0, rel=0.1)
    assert waiting(replace(LOAD, queued_requests=100.0)) == pytest.approx(grown + 100.0)
    assert waiting(replace(LOAD, serving=10.0)) == 0.0
    assert waiting(replace(LOAD, serving=10.0, queued_requests=100.0)) == 0.0, "worked off before help comes"
    assert waiting(replace(LOAD, lead_s=0.0, queued_requests=7.0)) == 7.0


def test_new_prefill_replicas_work_off_what_waits_within_the_drain_time() -> None:
    flow, late = options(LOAD.flowing()), options(LOAD)
    assert late.wanted * 30.0 * (1.0 / COST_S) >= 0.9 * (waiting(LOAD) + 40.0 * 30.0)
    assert late.wanted > flow.wanted
    assert [link.reason for link in late.chain] == [ReasonCode.SLA, ReasonCode.BACKLOG]
    assert f"clear the {waiting(LOAD):.0f} that will wait" in late.chain[-1].sentence
    assert options(replace(LOAD, lead_s=5.0)).wanted < late.wanted, "less waits for a faster start"


def test_decode_is_sized_for_what_prefill_lets_through() -> None:
    flow, late = options(LOAD.flowing(), DECODE), options(LOAD, DECODE)
    assert late.wanted > flow.wanted
    assert late.chain[-1].reason is ReasonCode.BACKLOG
    assert f"take the answers of the {waiting(LOAD):.0f} that will wait" in late.chain[-1].sentence


def test_no_more_answers_are_in_flight_than_prompts_waited() -> None:
    """Answers of minutes: the backlog adds its own number of sequences at most, not a rate that lasts."""
    long = replace(LOAD, osl_tokens=20_000.0)
    added = options(long, DECODE).speed_at(50) / options(long.flowing(), DECODE).speed_at(50)
    assert added < 1.0 + 1.1 * waiting(long) / (40.0 * 20_000.0 * CONFIG.itl_ms / 1000.0)


def test_a_replica_that_is_starting_serves_for_half_of_the_time_that_a_start_takes() -> None:
    forecasts = {name: Forecast(9.0, 9.0, 9.0, 60.0, "test") for name in load_forecast.QUANTITIES}
    pools = {PREFILL: PoolObservation(Replicas(ready=2, starting=3, terminating=5, pending=1))}
    assert load_forecast.sized_load(CONFIG, forecasts, replace(traffic(9.0), pools=pools)).serving == 4.0


@given(st.floats(0.0, 3000.0), st.floats(0.1, 60.0), st.floats(0.0, 40.0), st.sampled_from([0.0, 30.0, 300.0]))
def test_more_that_waits_never_asks_for_less(queued: float, rate: float, serving: float, lead_s: float) -> None:
    load = replace(LOAD, queued_requests=queued, rates=(rate,), req_per_s=rate, serving=serving, lead_s=lead_s)
    for name in (PREFILL, DECODE):
        calm, late = options(load.flowing(), name), options(load, name)
        more = options(replace(load, queued_requests=queued + 100.0), name)
        assert calm.wanted <= late.wanted <= more.wanted
        assert waiting(load) > 0.0 or calm.wanted == late.wanted or name == PREFILL
