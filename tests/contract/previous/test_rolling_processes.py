"""The previous release's own code beside today's, as processes on one nats-server: upgraded, cut, rolled back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.previous.mixed_site import NODES, MixedSite, mixed_site
from tests.contract.previous.previous_code import previous_code

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600), pytest.mark.xdist_group("rolling")]


async def _agents(site: MixedSite, release: str, cut_watts: float) -> None:
    """Replace one agent after the other, with a cut in the middle."""
    first, *others = NODES
    await site.agent(first, release)
    await site.budget(cut_watts, release)
    for node in others:
        await site.agent(node, release)


async def _planner(site: MixedSite, name: str, release: str, successor_of: str) -> None:
    """A new planner stands by, then the old one ends."""
    await site.planner(name, release)
    await site.end(successor_of)
    await site.leads(name)


async def _whole_site_of_before(site: MixedSite) -> None:
    await site.planner("planner-a", "before")
    await site.leads("planner-a")
    for node in NODES:
        await site.agent(node, "before")
    await site.budget(1500, "before")


def _judged(site: MixedSite, cuts: int, record_property: Callable[[str, object], None]) -> None:
    ledger = site.ledger()
    over = ledger.over_s(0.0)
    assert site.rises_above() == [], site.logs()
    assert len(over) <= cuts, f"above the budget only right after a cut: {over}"
    assert float("inf") not in over
    longest = max(over, default=0.0)
    record_property("measured", f"{len(ledger.sums)} sums, {cuts} cuts, above the budget for at most {longest:.2f} s")


async def test_agents_first_then_the_planner(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    async with mixed_site(tmp_path, previous_code(tmp_path / "before")) as site:
        await _whole_site_of_before(site)
        await _agents(site, "today", cut_watts=1300)
        await site.budget(1900, "before")
        await _planner(site, "planner-b", "today", "planner-a")
        await site.budget(1200, "today")
        await site.budget(1700, "today")
        _judged(site, 3, record_property)


async def test_the_planner_first_and_rolled_back(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with mixed_site(tmp_path, previous_code(tmp_path / "before")) as site:
        await _whole_site_of_before(site)
        await _planner(site, "planner-b", "today", "planner-a")
        await site.budget(1800, "today")
        await _agents(site, "today", cut_watts=1300)
        await _planner(site, "planner-c", "before", "planner-b")
        await site.budget(1600, "before")
        await _agents(site, "before", cut_watts=1200)
        await site.budget(1700, "before")
        _judged(site, 3, record_property)
