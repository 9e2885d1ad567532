"""A site that cannot power what runs keeps replicas longer, and not for ever."""

from __future__ import annotations

from planner.domain.config import ScalingRules
from tests.unit.planner.core.small_site import DECODE, PREFILL, SmallSite, deployment, planner, pool, traffic

POOLS = {name: pool(name, scale_down=ScalingRules()) for name in (PREFILL, DECODE)}
WINDOW_S = POOLS[DECODE].down_window_s
INTERVAL_S = 30.0


def counts_by_window(budget_mw: int, windows: int) -> list[int]:
    """Replicas after each default window of a load that needs two of the eight that run."""
    site = SmallSite(planner(deployment(POOLS), budget_mw=budget_mw))
    site.run_pods(prefill=4, decode=4)
    found = []
    for _ in range(windows):
        for _ in range(int(WINDOW_S / INTERVAL_S)):
            site.tick(traffic(0.2))
            site.now_s += INTERVAL_S
            site.react()
        found.append(site.count(PREFILL) + site.count(DECODE))
    return found


def test_with_watts_for_all_a_window_is_one_window_long() -> None:
    assert counts_by_window(6_000_000, 3)[-1] == 2


def test_short_of_watts_replicas_are_kept_for_four_windows_and_then_given_up() -> None:
    found = counts_by_window(4_000_000, 6)
    assert found[:3] == [8, 8, 8]
    assert found[-1] == 2
