"""Queues in front of engines, against closed forms and against a queue that is simulated."""

from __future__ import annotations

import heapq
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core.sizing.queueing import FULLEST, Station


def one(station: Station, count: int, speed: float = 1.0) -> float:
    return float(station.response_ms(np.array([float(count)]), np.array([speed]))[0])


def test_a_single_server_queue_has_its_textbook_quantile() -> None:
    """M/M/1 with rho 0.8 and S 100 ms: P(wait > t) = 0.8 exp(-t / 500)."""
    queue = Station(req_per_s=8.0, own_ms=100.0, cost_ms=100.0, dispersion=1.0, quantile=0.95)
    assert one(queue, 1) == pytest.approx(100.0 + 500.0 * math.log(0.8 / 0.05))


def simulated_p95_ms(rate: float, servers: int, service: float, cv2: float, requests: int = 40_000) -> float:
    rng = random.Random(5)
    free = [0.0] * servers
    now, responses = 0.0, []
    shape = 1.0 / cv2
    for _ in range(requests):
        now += rng.expovariate(rate)
        start = max(now, heapq.heappop(free))
        lasts = rng.gammavariate(shape, service / shape)
        heapq.heappush(free, start + lasts)
        responses.append(start - now)
    return sorted(responses)[int(0.95 * requests)] * 1000.0


@pytest.mark.parametrize(("servers", "rho", "cv2"), [(1, 0.7, 1.0), (2, 0.8, 1.0), (4, 0.85, 0.5), (8, 0.9, 2.0)])
def test_waits_are_those_of_a_simulated_queue(servers: int, rho: float, cv2: float) -> None:
    rate = rho * servers / 0.1
    queue = Station(rate, own_ms=0.0, cost_ms=100.0, dispersion=(1.0 + cv2) / 2.0, quantile=0.95)
    assert one(queue, servers) == pytest.approx(simulated_p95_ms(rate, servers, 0.1, cv2), rel=0.25)


stations = st.builds(
    Station,
    req_per_s=st.floats(0.001, 1e4),
    own_ms=st.floats(0.1, 1e4),
    cost_ms=st.floats(0.1, 1e4),
    dispersion=st.floats(0.05, 10.0),
    quantile=st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)


@settings(max_examples=300, deadline=None)
@given(stations, st.integers(1, 300), st.floats(1.05, 50.0))
def test_the_required_speed_is_enough_and_hardly_more(queue: Station, count: int, slack: float) -> None:
    target_ms = queue.own_ms * slack
    counts = np.array([float(count)])
    speed = queue.required_speed(counts, target_ms)
    assert one(queue, count, float(speed[0])) <= target_ms * (1 + 1e-6)
    less = float(speed[0]) * 0.999
    busy = float(queue.utilisation(counts)[0]) / less
    assert busy > FULLEST or one(queue, count, less) > target_ms * (1 - 1e-6)


@settings(max_examples=100, deadline=None)
@given(stations, st.floats(1.05, 50.0))
def test_more_replicas_never_need_more_speed(queue: Station, slack: float) -> None:
    speed = queue.required_speed(np.arange(1.0, 60.0), queue.own_ms * slack)
    assert (np.diff(speed) <= 1e-9 * speed[:-1]).all()


def test_no_replica_needs_endless_speed_and_no_load_needs_only_service() -> None:
    busy = Station(5.0, 100.0, 100.0, 1.0, 0.95)
    assert busy.required_speed(np.array([0.0]), 500.0)[0] == math.inf
    idle = Station(0.0, 100.0, 100.0, 1.0, 0.95)
    assert idle.required_speed(np.array([3.0]), 500.0)[0] == pytest.approx(0.2)


def test_a_queue_that_grows_forever_has_no_response() -> None:
    queue = Station(20.0, 100.0, 100.0, 1.0, 0.95)
    assert queue.response_at(1, 1.0) is None
    assert queue.response_at(4, 1.0) is not None
