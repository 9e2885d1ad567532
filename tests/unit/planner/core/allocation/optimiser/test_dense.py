"""The table of one deployment's options gives the same answer as the search that leaves hopeless counts out."""

from __future__ import annotations

import pytest

from planner.core.allocation.optimiser import dense
from planner.core.allocation.optimiser.solve import allocate
from tests.unit.planner.core.allocation.optimiser.instances import instance


def test_the_table_and_the_search_choose_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    short = 0
    for seed in range(60):
        demands, limits = instance(seed, deployments=1, most=3 + seed % 9, tightness=(0.05, 1.0))
        monkeypatch.setattr(dense, "LARGEST", 1_000_000)
        at_once = allocate(demands, limits)
        monkeypatch.setattr(dense, "LARGEST", 0)
        assert allocate(demands, limits) == at_once, seed
        short += any(at_once.shortfall.values())
    assert short >= 30
