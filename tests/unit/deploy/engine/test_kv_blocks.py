"""Blocks of a KV cache: shared beginnings, eviction, and nothing lost."""

from __future__ import annotations

import random

import pytest

from deploy.engine.kv_blocks import BLOCK_TOKENS, Holding, KvBlocks, block_hashes

PROMPT = [f"w{index}" for index in range(5 * BLOCK_TOKENS + 3)]


def test_equal_beginnings_have_equal_hashes_and_only_whole_blocks_count():
    other = [*PROMPT[: 2 * BLOCK_TOKENS], *reversed(PROMPT)]
    assert len(block_hashes(PROMPT)) == 5
    assert block_hashes(PROMPT)[:2] == block_hashes(other)[:2]
    assert not set(block_hashes(PROMPT)[2:]) & set(block_hashes(other)[2:])
    assert block_hashes(PROMPT[: BLOCK_TOKENS - 1]) == ()


def test_a_prompt_is_cached_after_its_request_has_ended_and_shared_while_it_runs():
    kv = KvBlocks(100 * BLOCK_TOKENS)
    first = kv.take(block_hashes(PROMPT), len(PROMPT) + 1)
    assert first is not None
    assert (first.cached_tokens, kv.used) == (0, 6)
    second = kv.take(block_hashes(PROMPT), len(PROMPT) + 1)
    assert second is not None
    assert (second.cached_tokens, kv.used) == (5 * BLOCK_TOKENS, 7)
    kv.release(first)
    kv.release(second)
    assert kv.used == 0
    third = kv.take(block_hashes(PROMPT), len(PROMPT) + 1)
    assert third is not None
    assert third.cached_tokens == 5 * BLOCK_TOKENS


def test_without_the_prefix_cache_nothing_is_found():
    kv = KvBlocks(100 * BLOCK_TOKENS, prefix_cache=False)
    for _ in range(2):
        holding = kv.take(block_hashes(PROMPT), len(PROMPT))
        assert holding is not None
        assert holding.cached_tokens == 0
    assert kv.used == 12


def test_a_full_cache_refuses_and_cached_blocks_make_room_oldest_first():
    kv = KvBlocks(4 * BLOCK_TOKENS)
    old, new = (block_hashes([f"{name}{index}" for index in range(2 * BLOCK_TOKENS)]) for name in "ab")
    for hashes in (old, new):
        holding = kv.take(hashes, 2 * BLOCK_TOKENS)
        assert holding is not None
        kv.release(holding)
    full = kv.take((), 2 * BLOCK_TOKENS)
    assert full is not None
    assert kv.take(old, 2 * BLOCK_TOKENS, leave=1) is None
    again = kv.take(new, 2 * BLOCK_TOKENS)
    assert again is not None
    assert again.cached_tokens == 2 * BLOCK_TOKENS
    assert not kv.grow(full, 2 * BLOCK_TOKENS + 1)
    kv.release(again)
    assert kv.grow(full, 2 * BLOCK_TOKENS + 1)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_and_goes_no_block_is_lost_or_held_twice(seed):
    rng = random.Random(seed)
    kv = KvBlocks(20 * BLOCK_TOKENS)
    held: list[Holding] = []
    for _ in range(500):
        if held and rng.random() < 0.4:
            kv.release(held.pop(rng.randrange(len(held))))
        elif held and rng.random() < 0.3:
            kv.grow(rng.choice(held), rng.randrange(1, 200))
        else:
            prompt = [f"{rng.randrange(3)}-{index}" for index in range(rng.randrange(1, 120))]
            if (taken := kv.take(block_hashes(prompt), len(prompt) + 1)) is not None:
                held.append(taken)
        own = sum(one.own for one in held)
        shared = {block for one in held for block in one.shared}
        assert kv.used == own + len(shared) <= kv.capacity
    for one in held:
        kv.release(one)
    assert kv.used == 0


def test_a_cache_below_one_block_is_refused():
    with pytest.raises(ValueError, match="at least 16 tokens"):
        KvBlocks(BLOCK_TOKENS - 1)
