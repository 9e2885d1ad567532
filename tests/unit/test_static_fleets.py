"""The referee's search for the smallest static fleet with a share of good requests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks.dynamo_replay_support.static_fleets import on_the_way, smallest


def fleets(prefill_needed: int, decode_needed: int) -> Any:
    """A replay in which each missing worker loses a tenth of the requests."""

    def replayed(prefill: int, decode: int) -> dict[str, Any]:
        queue, slow = max(0, prefill_needed - prefill), max(0, decode_needed - decode)
        misses = {"queue": 10 * queue, "decode": 10 * slow}
        return {"start": (prefill, decode), "good_share": 1.0 - 0.1 * (queue + slow), "misses": misses}

    return replayed


@pytest.mark.parametrize("near", [(1, 1), (3, 2), (6, 1), (9, 5)])
def test_it_is_found_from_below_and_from_above(near: tuple[int, int]) -> None:
    best = smallest(fleets(4, 2), 0.97, (1, 1), near)
    assert best is not None
    assert best["start"] == (4, 2)
    tried = [found["start"] for found in on_the_way(fleets(4, 2), 0.97, (1, 1), near)]
    assert tried[-1] == (4, 2)
    assert len(tried) == len(set(tried))


def test_no_fleet_is_better_than_one_that_does_not_reach_it() -> None:
    assert smallest(fleets(99, 1), 0.97, (1, 1)) is None
