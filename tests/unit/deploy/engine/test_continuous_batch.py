"""What an engine computes in each step, and how long it takes."""

from __future__ import annotations

import pytest

from deploy.engine.continuous_batch import ContinuousBatch, Generation
from deploy.engine.engine_run import LinearTimes
from deploy.engine.kv_blocks import BLOCK_TOKENS, KvBlocks, block_hashes
from planner.sim.cluster.engine_timing import DecodeLaw, EngineLaw, PrefillLaw

TIMES = LinearTimes(
    prefill_base_ms=10, prefill_ms_per_token=1, itl_base_ms=20, itl_ms_per_request=2, itl_ms_per_kv_token=0.01
)


def batch_of(kv_tokens=1000 * BLOCK_TOKENS, *, max_seqs=8, max_batched_tokens=200) -> ContinuousBatch:
    law = TIMES.law(kv_tokens)
    assert law.prefill is not None
    assert law.decode is not None
    prefill = PrefillLaw(law.prefill.isl, law.prefill.seconds, law.prefill.once_s, max_batched_tokens)
    decode = DecodeLaw(law.decode.a, law.decode.b, law.decode.c, kv_tokens, max_seqs)
    return ContinuousBatch(EngineLaw(prefill, decode), KvBlocks(kv_tokens))


def run(batch: ContinuousBatch, steps: int) -> list[float]:
    """Durations in milliseconds of that many steps."""
    durations = []
    for _ in range(steps):
        step = batch.begin(0.0)
        assert step is not None
        batch.finish(step, 0.0)
        durations.append(step.duration_s * 1000)
    return durations


def test_a_request_alone_takes_its_prefill_and_then_a_token_a_step():
    batch = batch_of()
    batch.submit(one := Generation(prompt_tokens=100, answer_tokens=3))
    # Prefill 10 + 100 * 1; then 20 + 2 + 0.01 for each token in the cache.
    assert run(batch, 3) == pytest.approx([110, 23.01, 23.02])
    assert one.done == 3
    assert not batch.busy
    assert batch.kv.used == 0
    assert batch.begin(0.0) is None


def test_requests_of_one_batch_pay_its_base_once():
    batch = batch_of()
    for _ in range(4):
        batch.submit(Generation(prompt_tokens=10, answer_tokens=2))
    assert run(batch, 2) == pytest.approx([10 + 4 * 10, 20 + 4 * 2 + 4 * 11 * 0.01])


def test_a_long_prompt_is_computed_in_chunks_beside_the_running_requests():
    batch = batch_of()
    batch.submit(short := Generation(prompt_tokens=10, answer_tokens=10))
    run(batch, 1)
    batch.submit(long := Generation(prompt_tokens=300, answer_tokens=1))
    first = batch.begin(0.0)
    assert first is not None
    assert [part for _, part in first.chunks] == [199]
    assert first.decoding == (short,)
    # The chunk's part of the whole prompt's time, and the running request's own part of a step.
    assert first.duration_s * 1000 == pytest.approx(310 * 199 / 300 + 2 + 0.11)
    batch.finish(first, 0.0)
    assert (short.done, long.done) == (2, 0)
    run(batch, 1)
    assert (short.done, long.done) == (3, 1)


def test_what_does_not_fit_into_the_batch_waits_in_order():
    batch = batch_of(max_seqs=2)
    requests = [Generation(prompt_tokens=10, answer_tokens=2) for _ in range(3)]
    for one in requests:
        batch.submit(one)
    run(batch, 2)
    assert [one.done for one in requests] == [2, 2, 0]
    run(batch, 1)
    assert [one.done for one in requests] == [2, 2, 1]


def test_a_cached_beginning_is_not_computed_again():
    batch = batch_of()
    prompt = [f"w{index}" for index in range(100)]
    for expected_ms in (110, 10 + 100 - 96):
        batch.submit(Generation(prompt_tokens=100, answer_tokens=1, hashes=block_hashes(prompt)))
        assert run(batch, 1) == pytest.approx([expected_ms])


def test_a_prompt_that_was_computed_elsewhere_takes_no_prefill():
    batch = batch_of()
    batch.submit(Generation(prompt_tokens=100, answer_tokens=2, remote_prefill=True))
    assert run(batch, 2) == pytest.approx([23.0, 23.01])


def test_a_full_cache_preempts_the_newest_which_completes_later():
    batch = batch_of(8 * BLOCK_TOKENS)
    requests = [Generation(prompt_tokens=3 * BLOCK_TOKENS - 1, answer_tokens=2 * BLOCK_TOKENS) for _ in range(2)]
    for one in requests:
        batch.submit(one)
    steps = 0
    while batch.busy:
        run(batch, 1)
        steps += 1
        assert steps < 200
    assert [one.preemptions for one in requests] == [0, 1]
    assert batch.preempted == 1
    assert [one.done for one in requests] == [2 * BLOCK_TOKENS] * 2
    assert batch.kv.used == 0


def test_an_aborted_request_leaves_at_once_whether_it_waits_or_runs():
    batch = batch_of(max_seqs=1)
    running, waiting = (Generation(prompt_tokens=10, answer_tokens=50) for _ in range(2))
    batch.submit(running)
    batch.submit(waiting)
    step = batch.begin(0.0)
    assert step is not None
    assert batch.abort(waiting)
    assert batch.abort(running)
    assert batch.finish(step, 0.0) == []
    assert not batch.busy
    assert batch.kv.used == 0
    assert not batch.abort(running)


def test_a_context_larger_than_the_cache_is_refused_at_once():
    with pytest.raises(ValueError, match="larger than the KV cache"):
        batch_of(10 * BLOCK_TOKENS).submit(Generation(prompt_tokens=100, answer_tokens=100))


def test_an_engine_without_both_phases_is_refused():
    law = TIMES.law(1000)
    with pytest.raises(ValueError, match="both phases"):
        ContinuousBatch(EngineLaw(law.prefill, None), KvBlocks(1000))
