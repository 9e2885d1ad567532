"""Clusters of any size: every GPU is there, and the fleet at the start fills them as the load needs."""

from __future__ import annotations

from array import array
from dataclasses import replace

import pytest

from planner.adapters.traces import Trace
from planner.sim.capacity.sized_cluster import busiest_gpus, cluster_sizes, sized, work_by_pool
from planner.sim.cluster.plant import ClusterSpec, NoFreeGpuError
from planner.sim.workload.scenario import Scenario, card_of, disaggregated
from tests.unit.planner.sim.small_plants import profile


def scenario(prefill_gpus: int = 1, decode_gpus: int = 1) -> Scenario:
    count = 600
    trace = Trace(
        "t", array("d", (0.1 * n for n in range(count))), array("l", [2000] * count), array("l", [50] * count)
    )
    engines = replace(profile(), prefill_gpus=prefill_gpus, decode_gpus=decode_gpus)
    pools = disaggregated(engines, "h200", startup_s=5.0)
    return Scenario(trace, engines, ClusterSpec(1, 8, card_of("h200")), pools, 1000.0, 40.0)


def test_every_size_has_its_gpus_and_a_fleet_that_fills_it() -> None:
    load = scenario()
    work = work_by_pool(load)
    for gpus in (2, 3, 7, 8, 9, 17, 24):
        made = sized(load, gpus, work)
        assert made.gpus == gpus == len(made.plant().gpus)
        assert sum(pool.replicas * pool.gpus_per_replica for pool in made.pools) == gpus
        assert all(pool.replicas >= 1 for pool in made.pools)


def test_the_busier_phase_has_the_larger_fleet() -> None:
    load = scenario()
    work = work_by_pool(load)
    prefill, decode = sized(load, 12, work).pools
    assert (prefill.replicas > decode.replicas) == (work["prefill"] > work["decode"])
    assert busiest_gpus(load) >= 2


def test_workers_of_several_gpus_fit_their_nodes() -> None:
    load = scenario(4, 8)
    assert cluster_sizes(load, 24) == (12, 16, 20, 24)
    assert cluster_sizes(load, 11) == ()
    for gpus in cluster_sizes(load, 24):
        assert {pool.replicas > 0 for pool in sized(load, gpus, work_by_pool(load)).pools} == {True}


def test_a_size_that_holds_no_worker_of_each_phase_is_left_out() -> None:
    load = scenario(3, 6)
    assert cluster_sizes(load, 15) == (12, 15)
    with pytest.raises(NoFreeGpuError):
        sized(load, 9, work_by_pool(load))
