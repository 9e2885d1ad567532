"""The life of workers: start-up, draining, failure, placement; and that everything repeats by its seed."""

from __future__ import annotations

import pytest

from planner.domain.request import Request
from planner.sim.cluster.orchestrator import Orchestrator
from planner.sim.cluster.plant import NoFreeGpuError
from planner.sim.workload.generated import generated
from tests.unit.planner.sim.small_plants import disaggregated, finish, profile


def test_a_new_worker_serves_only_after_its_start_and_draws_power_before() -> None:
    plant = disaggregated(startup_s=60.0)
    name = plant.start_worker("prefill")
    plant.advance(5.0)
    assert plant.worker_counts()["prefill"].starting == 1
    assert next(r.load_mw for r in plant.readings() if r.worker == name) == 200_000
    plant.advance(120.0)
    assert plant.worker_counts()["prefill"].ready == 2


def test_start_up_times_have_the_mean_and_spread_that_were_asked_for() -> None:
    plant = disaggregated(startup_s=60.0, gpus=400)
    for _ in range(300):
        plant.start_worker("decode")
    plant.advance(60.0)
    assert 120 <= plant.worker_counts()["decode"].ready <= 190
    plant.advance(60.0 * 1.5)
    assert plant.worker_counts()["decode"].ready == 301


def test_a_draining_worker_finishes_what_it_has_and_takes_nothing_new() -> None:
    plant = disaggregated(1, 2)
    plant.submit([Request(0.0, 100, 500), Request(0.2, 100, 500), Request(3.0, 100, 10)])
    plant.advance(1.0)
    drained = plant.drain_one("decode")
    assert drained is not None
    assert plant.worker_counts()["decode"].draining == 1
    assert any(r.terminating for r in plant.readings() if r.worker == drained)
    finish(plant, [])
    assert plant.worker_counts()["decode"].draining == 0
    assert len(plant.records) == 2


def test_a_starting_worker_is_drained_first_and_leaves_at_once() -> None:
    plant = disaggregated(startup_s=60.0)
    name = plant.start_worker("decode")
    assert plant.drain_one("decode") == name
    assert plant.worker_counts()["decode"].starting == 0
    plant.advance(200.0)
    assert plant.worker_counts()["decode"].ready == 1


def test_requests_wait_while_no_worker_is_there_and_are_served_when_one_comes() -> None:
    plant = disaggregated(startup_s=30.0)
    plant.drain_one("prefill")
    plant.submit([Request(1.0, 100, 5)])
    plant.advance(10.0)
    assert plant.in_flight == 1
    plant.start_worker("prefill")
    finish(plant, ())
    assert plant.records[0].prefill_wait_ms > 9_000


def test_a_dead_worker_costs_its_requests_time_and_none_is_lost() -> None:
    plant = disaggregated(1, 2)
    plant.submit([Request(0.01 * i, 100, 400) for i in range(10)])
    plant.advance(1.0)
    plant.fail_worker(next(iter(plant.pools["decode"].workers)))
    finish(plant, ())
    assert len(plant.records) == 10


def test_workers_fail_at_the_rate_that_was_asked_for() -> None:
    plant = disaggregated(mtbf_s=100.0, seed=3)
    plant.advance(2000.0)
    assert plant.worker_counts()["prefill"].ready == 0


def test_an_engine_of_many_gpus_stays_on_one_node_and_fills_up_nodes() -> None:
    plant = disaggregated(1, 1, gpus=4, nodes=3, gpus_per_replica=2)
    by_worker: dict[str, set[str]] = {}
    for reading in plant.readings():
        if reading.worker:
            by_worker.setdefault(reading.worker, set()).add(reading.node)
    assert all(len(nodes) == 1 for nodes in by_worker.values())
    assert len(set.union(*by_worker.values())) == 1
    for _ in range(4):
        plant.start_worker("decode")
    with pytest.raises(NoFreeGpuError, match="2 free GPUs"):
        plant.start_worker("decode")


def test_a_hint_is_followed_when_its_gpus_are_free() -> None:
    plant = disaggregated()
    name = plant.start_worker("decode", ["GPU-node-0-06"])
    assert plant.gpu("GPU-node-0-06").worker == name
    other = plant.start_worker("decode", ["GPU-node-0-06"])
    assert plant.gpu("GPU-node-0-06").worker == name
    assert other != name


def test_one_seed_one_outcome() -> None:
    def outcome(seed: int) -> list[float]:
        plant = disaggregated(
            2, 2, max_prompts=256, engines=profile(max_batched=2048), startup_s=20.0, seed=seed, mtbf_s=60.0
        )
        requests = generated(1, requests_per_s=8.0)
        plant.submit(next(requests) for _ in range(800))
        for _ in range(10):
            plant.advance(plant.now_s + 9.0)
            plant.start_worker("prefill") if plant.worker_counts()["prefill"].ready < 2 else None
        plant.advance(400.0)
        return [*plant.records.column("finished_s"), plant.total_energy_j()]

    assert outcome(1) == outcome(1)
    assert outcome(1) != outcome(2)


def test_an_orchestrator_reclaims_what_drains_and_cancels_starts_before_it_drains() -> None:
    plant = disaggregated(1, 2, startup_s=60.0)
    fleet = Orchestrator(plant)
    plant.submit([Request(0.0, 100, 5000), Request(0.2, 100, 5000)])
    plant.advance(1.0)
    done: list[str] = []
    fleet.aim({"decode": 1}, on_settled=lambda: done.append("one"))
    assert plant.worker_counts()["decode"].draining == 1
    fleet.aim({"decode": 3}, on_settled=lambda: done.append("three"))
    counts = plant.worker_counts()["decode"]
    assert (counts.ready, counts.starting, counts.draining) == (2, 1, 0), "one served on, and only one starts"
    fleet.aim({"decode": 2}, on_settled=lambda: done.append("two"))
    counts = plant.worker_counts()["decode"]
    assert (counts.ready, counts.starting, counts.draining) == (2, 0, 0), "the unwanted start is cancelled"
    assert done == ["two"], "a decision that was replaced is never reported as carried out"
    plant.advance(400.0)
    assert plant.in_flight == 0
