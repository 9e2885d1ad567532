"""Decode by closed forms equals decode token by token."""

from __future__ import annotations

import pytest

from planner.domain.pool import Role
from planner.domain.request import Request
from planner.sim.cluster.decode_worker import TokenGaps
from planner.sim.cluster.plant import ClusterSpec, Plant, PlantSpec
from planner.sim.cluster.worker_pool import PoolSpec
from tests.unit.planner.sim.small_plants import A_MS, B_MS, C_MS, DECODE_CURVE, disaggregated, finish, profile


def token_by_token_s(isl: int, osl: int, batch: int) -> float:
    """Seconds until ``batch`` equal requests that start together have all their tokens."""
    return sum(A_MS + B_MS * batch + C_MS * batch * (isl + done) for done in range(osl)) / 1000


def test_one_request_alone_takes_the_sum_of_its_iterations() -> None:
    plant = finish(disaggregated(), [Request(0.0, 1000, 200)])
    record = plant.records[0]
    assert record.finished_s == pytest.approx(0.1 + token_by_token_s(1000, 200, 1), rel=2e-3)
    assert record.ttft_ms == pytest.approx(100 + A_MS + B_MS + C_MS * 1000, rel=1e-3)


def test_equal_requests_together_slow_each_other() -> None:
    engines = profile(max_batched=100_000)
    before = Request(0.0, 1000, 1)  # holds the prefill worker, so that the eight wait and make one batch
    plant = finish(
        disaggregated(engines=engines, max_prompts=256), [before, *(Request(0.05, 500, 300) for _ in range(8))]
    )
    assert len(plant.records) == 9
    expected_s = 0.1 + 8 * 0.05 + token_by_token_s(500, 300, 8)
    assert plant.records.column("finished_s")[1:] == pytest.approx(expected_s, rel=2e-3)


def test_progress_does_not_depend_on_how_often_it_is_read() -> None:
    requests = [Request(0.3 * i, 100 + 37 * i, 50 + 11 * i) for i in range(30)]
    rarely = finish(disaggregated(2, 2), requests)
    often = disaggregated(2, 2)
    often.submit(requests)
    while often.in_flight or not often.exhausted:
        often.advance(often.now_s + 0.013)
        for worker in often.pools["decode"].workers.values():
            worker.catch_up()  # type: ignore[attr-defined]
    assert list(often.records.column("finished_s")) == pytest.approx(list(rarely.records.column("finished_s")))


def test_a_full_cache_preempts_the_last_and_loses_no_request() -> None:
    engines = profile(max_kv=2000, max_batched=100_000)
    plant = finish(disaggregated(engines=engines, max_prompts=256), [Request(0.0, 300, 600) for _ in range(5)])
    assert len(plant.records) == 5
    assert plant.records.column("preemptions").sum() > 0


def test_preempted_requests_that_move_between_workers_leave_nothing_behind() -> None:
    engines = profile(max_kv=3000, max_batched=100_000)
    requests = [Request(0.02 * i, 200 + 7 * (i % 13), 150 + 31 * (i % 11)) for i in range(300)]
    plant = finish(disaggregated(2, 4, engines=engines, max_prompts=8), requests)
    assert len(plant.records) == 300
    assert plant.records.column("preemptions").sum() > 20
    for worker in plant.pools["decode"].workers.values():
        assert not worker.busy


def test_the_batch_is_limited() -> None:
    engines = profile(max_seqs=2, max_batched=100_000)
    plant = disaggregated(engines=engines, max_prompts=256)
    plant.submit([Request(0.0, 100, 1000) for _ in range(5)])
    plant.advance(1.0)
    assert plant.pools["decode"].running() == 2
    assert len(plant.pools["decode"].queue) == 3


def test_a_request_no_cache_can_hold_is_refused_and_counted() -> None:
    plant = finish(disaggregated(), [Request(0.0, 200_000, 10), Request(0.0, 100, 10)])
    assert plant.refused == 1
    assert len(plant.records) == 1


def test_a_slower_truth_stretches_everything() -> None:
    fast = finish(disaggregated(), [Request(0.0, 1000, 100)]).records[0]
    slow = finish(disaggregated(truth=0.5), [Request(0.0, 1000, 100)]).records[0]
    assert slow.ttft_ms == pytest.approx(2 * fast.ttft_ms, rel=1e-3)
    assert slow.itl_ms == pytest.approx(2 * fast.itl_ms, rel=1e-3)


def aggregated(replicas: int) -> Plant:
    pool = PoolSpec("aggregated", Role.AGGREGATED, 1, DECODE_CURVE, replicas, 0.0)
    return Plant(PlantSpec(ClusterSpec(1, 8), (pool,), profile()))


def test_an_aggregated_worker_computes_prompts_and_holds_decode_up() -> None:
    alone = finish(aggregated(1), [Request(0.0, 1000, 100)]).records[0]
    assert alone.ttft_ms == pytest.approx(100, rel=1e-3)
    held = finish(aggregated(1), [Request(0.0, 1000, 100), Request(0.5, 5000, 10)])
    first = next(r for r in (held.records[0], held.records[1]) if r.number == 0)
    assert first.finished_s - alone.finished_s == pytest.approx(0.5, rel=0.1)


def test_the_longest_gap_of_an_answer_is_that_of_the_fullest_batch_it_was_in() -> None:
    engines = profile(max_batched=100_000)
    late = [Request(3.0, 500, 20) for _ in range(40)]
    plant = finish(disaggregated(engines=engines, max_prompts=256), [Request(0.0, 1000, 600), *late])
    alone, crowded = A_MS + B_MS + C_MS * 1000, A_MS + 41 * B_MS
    first = next(record for record in map(plant.records.__getitem__, range(len(plant.records))) if record.number == 0)
    assert first.itl_ms < 1.3 * alone
    assert crowded < first.stall_ms < 1.3 * (crowded + 41 * C_MS * 1000)


def test_a_preempted_answer_pauses_for_as_long_as_it_waits() -> None:
    engines = profile(max_kv=2000, max_batched=100_000)
    plant = finish(disaggregated(engines=engines, max_prompts=256), [Request(0.0, 300, 600) for _ in range(5)])
    preempted = plant.records.column("preemptions") > 0
    stalls = plant.records.column("stall_ms")
    assert preempted.any()
    assert stalls[preempted].min() > 10 * stalls[~preempted].max()


def test_an_answer_forgets_gaps_from_before_it_joined() -> None:
    gaps = TokenGaps()
    for gap_s in (0.9, 0.1, 0.4, 0.2, 0.3):
        gaps.note(gap_s)
    assert [gaps.longest_s(since) for since in range(6)] == [0.9, 0.4, 0.4, 0.3, 0.3, 0.0]
