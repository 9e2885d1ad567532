"""A process with a large site seldom looks for cycles, and still does."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from deploy.collector import COLLECT_AFTER, collect_seldom


@pytest.fixture(autouse=True)
def collector_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


class Cycle:
    def __init__(self) -> None:
        self.me = self


def test_cycles_are_found_after_many_objects_and_what_was_there_is_left_alone() -> None:
    collect_seldom()
    assert gc.get_freeze_count() > 1000
    gone = weakref.ref(Cycle())
    held: list[list[int]] = [[] for _ in range(10_000)]
    assert gone() is not None
    held += [[] for _ in range(COLLECT_AFTER)]
    assert gone() is None
