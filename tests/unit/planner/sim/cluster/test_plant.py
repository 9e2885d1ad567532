"""The plant against closed forms: waits of M/D/c and M/M/c, Little's law, conservation."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.request import Request
from tests.unit.planner.sim.small_plants import disaggregated, finish, profile

MANY = 40_000


def poisson(rate: float, count: int, seed: int, *, exponential: bool, mean_isl: int = 1000) -> Iterator[Request]:
    """``count`` requests of one token; input lengths fixed or exponential (at least 1)."""
    rng = random.Random(seed)
    t_s = 0.0
    for _ in range(count):
        t_s += rng.expovariate(rate)
        isl = max(1, round(rng.expovariate(1 / mean_isl))) if exponential else mean_isl
        yield Request(t_s, isl, 1)


def erlang_c_wait_s(rate: float, service_s: float, servers: int) -> float:
    """Mean wait of M/M/c (Erlang C)."""
    load = rate * service_s
    busy = load / servers
    top = load**servers / math.factorial(servers) / (1 - busy)
    waits = top / (sum(load**k / math.factorial(k) for k in range(servers)) + top)
    return waits * service_s / (servers * (1 - busy))


def mean_wait_s(servers: int, busy: float, *, exponential: bool) -> tuple[float, float]:
    """Simulated mean wait, and the arrival rate that gives ``busy``."""
    service_s = 0.1
    rate = busy * servers / service_s
    # Lengths are exponential through the origin only where the law has no fixed part: 0.1 ms a token, none.
    plant = disaggregated(servers, 4, gpus=16)
    finish(plant, poisson(rate, MANY, seed=5, exponential=exponential))
    waits = plant.records.column("prefill_wait_ms") / 1000
    return float(waits.mean()), rate


@pytest.mark.unmeasured
@pytest.mark.parametrize(("servers", "busy"), [(1, 0.5), (1, 0.8), (3, 0.8), (6, 0.85)])
def test_waits_for_exponential_prompts_are_erlang_c(servers: int, busy: float) -> None:
    wait_s, rate = mean_wait_s(servers, busy, exponential=True)
    assert wait_s == pytest.approx(erlang_c_wait_s(rate, 0.1, servers), rel=0.12)


@pytest.mark.unmeasured
@pytest.mark.parametrize("busy", [0.5, 0.8])
def test_waits_for_equal_prompts_at_one_worker_are_pollaczek_khinchine(busy: float) -> None:
    wait_s, _ = mean_wait_s(1, busy, exponential=False)
    assert wait_s == pytest.approx(busy * 0.1 / (2 * (1 - busy)), rel=0.08)


@pytest.mark.unmeasured
@pytest.mark.parametrize(("servers", "busy"), [(2, 0.8), (5, 0.85)])
def test_waits_for_equal_prompts_at_many_workers_are_half_of_erlang_c(servers: int, busy: float) -> None:
    """M/D/c is close to half of M/M/c, more exactly with the correction of Cosmetatos."""
    wait_s, rate = mean_wait_s(servers, busy, exponential=False)
    factor = 1 + (1 - busy) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * busy * servers)
    assert wait_s == pytest.approx(factor * erlang_c_wait_s(rate, 0.1, servers) / 2, rel=0.1)


def test_littles_law_holds_in_decode() -> None:
    """Mean number in decode = throughput x mean time in decode, where ITL depends on the batch itself."""
    rng = random.Random(1)
    requests, t_s = [], 0.0
    for _ in range(4000):
        t_s += rng.expovariate(4.0)
        requests.append(Request(t_s, 200, rng.randint(20, 400)))
    plant = disaggregated(4, 2)
    plant.submit(requests)
    seen, looks = 0.0, 0
    while plant.now_s < t_s:
        plant.advance(plant.now_s + 0.5)
        seen += plant.pools["decode"].running()
        looks += 1
    finish(plant, [])
    records = plant.records
    stay_s = records.column("finished_s") - (
        records.column("t_s") + (records.column("prefill_wait_ms") + 0.1 * records.column("isl")) / 1000
    )
    assert seen / looks == pytest.approx(len(requests) / t_s * float(stay_s.mean()), rel=0.05)


@settings(max_examples=40, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(st.floats(0, 5), st.integers(1, 3000), st.integers(1, 300)),
        min_size=1,
        max_size=60,
    ),
    actions=st.lists(st.tuples(st.sampled_from(["start", "drain", "fail", "cap"]), st.floats(0, 8)), max_size=12),
    max_kv=st.integers(3400, 20_000),
    seed=st.integers(0, 5),
)
def test_requests_are_conserved_whatever_happens_to_workers(
    arrivals: list[tuple[float, int, int]], actions: list[tuple[str, float]], max_kv: int, seed: int
) -> None:
    plant = disaggregated(
        2, 2, max_prompts=256, engines=profile(max_batched=2048, max_kv=max_kv), startup_s=1.0, seed=seed
    )
    requests = [Request(*row) for row in sorted(arrivals)]
    plant.submit(requests)
    for what, when_s in sorted(actions, key=lambda action: action[1]):
        plant.advance(when_s)
        pool = "decode" if seed % 2 else "prefill"
        workers = list(plant.pools[pool].workers)
        if what == "start" and len(workers) < 3:
            plant.start_worker(pool)
        elif what == "drain":
            plant.drain_one(pool)
        elif what == "fail" and workers:
            plant.fail_worker(workers[0])
        elif what == "cap":
            plant.set_cap("GPU-node-0-00", 300_000)
    for pool in ("prefill", "decode"):
        if not plant.worker_counts()[pool].ready + plant.worker_counts()[pool].starting:
            plant.start_worker(pool)
    finish(plant, (), limit_s=1.0)  # nothing new: what was to arrive has been replaced
    arrived = plant.frontend.started
    plant.advance(100_000.0)
    assert plant.in_flight == 0
    assert len(plant.records) + plant.refused == arrived
    assert sorted(set(plant.records.column("number"))) == sorted(plant.records.column("number"))
    assert (plant.records.column("ttft_ms") > 0).all()
    assert (plant.records.column("itl_ms") >= 0).all()
    for idle in plant.pools.values():
        assert idle.queued_tokens == 0
        assert idle.running() == 0
