"""Chunked prefill, the routers, and prefix caches."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.domain.request import Request
from planner.sim.cluster.engine_timing import Batching, PrefillLaw, engine_law
from planner.sim.cluster.job import Job
from planner.sim.cluster.plant import Plant, PlantSpec, TransferSpec
from planner.sim.cluster.prefill_worker import take_chunk
from planner.sim.cluster.prefix_cache import BLOCK_TOKENS, PrefixCache
from planner.sim.cluster.worker_pool import Router
from tests.unit.planner.sim.small_plants import disaggregated, finish, profile

LAW = PrefillLaw((100.0, 1000.0, 10_000.0), (0.02, 0.11, 1.01), once_s=0.01, max_batched_tokens=2000)


def jobs(*lengths: int) -> deque[Job]:
    return deque(Job(i, Request(0.0, isl, 1)) for i, isl in enumerate(lengths))


@given(lengths=st.lists(st.integers(1, 9000), min_size=1, max_size=40), budget=st.integers(1, 4000))
def test_chunks_hold_every_token_once_and_in_order(lengths: list[int], budget: int) -> None:
    queue = jobs(*lengths)
    begun: Job | None = None
    computed: dict[int, int] = {}
    order: list[int] = []
    while queue or begun:
        chunk = take_chunk(begun, queue, budget, 256)
        assert 0 < sum(part for _, part in chunk) <= budget
        assert all(job.prefilled_tokens == job.isl for job, _ in chunk[:-1])
        last = chunk[-1][0]
        begun = last if last.prefilled_tokens < last.isl else None
        for job, part in chunk:
            computed[job.index] = computed.get(job.index, 0) + part
            if job is not begun:
                order.append(job.index)
    assert [computed[i] for i in range(len(lengths))] == lengths
    assert order == sorted(order)


def test_a_chunk_takes_the_prompts_times_less_what_is_paid_once() -> None:
    assert LAW.alone_s(1000) == pytest.approx(0.11)
    assert LAW.alone_s(550) == pytest.approx(0.065)
    assert LAW.alone_s(19_000) == pytest.approx(1.91)  # straight on beyond what was measured
    assert LAW.chunk_s([(1000, 1000), (1000, 1000)]) == pytest.approx(0.21)
    assert LAW.chunk_s([(4000, 2000)]) == pytest.approx(LAW.alone_s(4000) / 2)
    together = replace(LAW, batching=Batching.TOTAL)
    assert together.chunk_s([(1000, 1000), (1000, 1000)]) == pytest.approx(LAW.alone_s(2000))


def test_a_long_prompt_in_chunks_takes_as_long_as_the_whole() -> None:
    engines = profile(max_batched=2048)
    record = finish(disaggregated(engines=engines, max_prompts=256), [Request(0.0, 10_000, 1)]).records[0]
    assert record.ttft_ms == pytest.approx(1000 + 10 + 0.1 + 1.0, rel=1e-3)


def test_the_fixed_part_of_a_prefill_is_found_in_the_profile() -> None:
    law = engine_law(profile()).prefill
    assert law is not None
    assert law.once_s == pytest.approx(0.0, abs=1e-9)


def pushed(workers: int, requests: list[Request], router: Router) -> Plant:
    base = disaggregated(workers, 2, max_prompts=1).spec
    pools = (replace(base.pools[0], router=router), base.pools[1])
    return finish(Plant(PlantSpec(base.cluster, pools, base.profile, transfer=TransferSpec(0, 0))), requests)


def test_a_pushing_router_makes_a_request_wait_behind_another_although_a_worker_is_free() -> None:
    requests = [Request(0.0, 10_000, 1), Request(0.1, 100, 1), Request(0.2, 100, 1)]
    shared = {r.number: r for r in map(pushed(2, requests, Router.SHARED).records.__getitem__, range(3))}
    turns = {r.number: r for r in map(pushed(2, requests, Router.ROUND_ROBIN).records.__getitem__, range(3))}
    assert shared[2].prefill_wait_ms == pytest.approx(0.0)
    assert turns[2].prefill_wait_ms == pytest.approx(800.0)


def test_a_drained_worker_serves_what_was_pushed_to_it() -> None:
    base = disaggregated(2, 1, max_prompts=1).spec
    plant = Plant(
        PlantSpec(base.cluster, (replace(base.pools[0], router=Router.ROUND_ROBIN), base.pools[1]), base.profile)
    )
    plant.submit([Request(0.01 * i, 2000, 5) for i in range(12)])
    plant.advance(0.2)
    assert plant.pools["prefill"].waiting() > 0
    plant.drain_one("prefill")
    finish(plant, ())
    assert len(plant.records) == 12
    assert plant.worker_counts()["prefill"].ready == 1


def test_a_prefix_cache_knows_leading_blocks_only_and_forgets_the_oldest() -> None:
    cache = PrefixCache(4 * BLOCK_TOKENS)
    assert cache.use((1, 2, 3), 1500) == 0
    assert cache.use((1, 2, 9), 1500) == 2 * BLOCK_TOKENS
    assert cache.use((7, 2, 9), 1500) == 0  # its first block is new: nothing before it is shared
    assert cache.use((1, 2, 3), 3 * BLOCK_TOKENS) <= 2 * BLOCK_TOKENS
    assert cache.use((7,), BLOCK_TOKENS) in (0, BLOCK_TOKENS - 1)


def test_a_repeated_prompt_is_nearly_free_with_a_prefix_cache() -> None:
    base = disaggregated(1, 1).spec
    pools = (replace(base.pools[0], prefix_cache=True), base.pools[1])
    plant = Plant(PlantSpec(base.cluster, pools, base.profile, transfer=TransferSpec(0, 0)))
    hashes = tuple(range(10))
    finish(plant, [Request(0.0, 5120, 1, hashes), Request(5.0, 5120, 1, hashes)])
    first, second = plant.records[0], plant.records[1]
    assert first.ttft_ms > 500
    assert second.ttft_ms < 30
    assert plant.frontend.cached_tokens == 5119
