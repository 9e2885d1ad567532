"""The ledger against histories that nobody plans for: cards that appear, nodes that return, streams that begin again."""

from __future__ import annotations

from dataclasses import replace

from planner.core.power.state import charged_mw, free_mw
from planner.domain.observation import GpuInForce, GpuObservation, NodeObservation, PowerAckSeen
from tests.unit.core.power_desk import CONFIG, HIGH, LOW, A, B, Desk, desk, g


def with_a_card_more(d: Desk, limit_mw: int) -> NodeObservation:
    """Node ``a`` with one more GPU, which a pod holds and which stands at ``limit_mw``."""
    page = next(report for report in d.reports() if report.node == A)
    gpu = g("a", 1)
    card = GpuObservation(gpu, None, limit_mw, limit_mw, HIGH, LOW, HIGH, worker="somebody")
    return replace(page, gpus={**page.gpus, gpu: card})


def test_a_card_that_appears_below_its_default_is_not_raised_by_a_renewal() -> None:
    d = desk(replace(CONFIG, budget_mw=1_500_000), per_node=1)
    d.settled({g("a"): 500_000, g("b"): 500_000})
    d.hear(with_a_card_more(d, 300_000))
    newest = d.power.nodes[A].next_id - 1
    d.now_s += 0.1
    limits = {g("a"): 500_000, g("a", 1): 300_000}
    told = tuple(GpuInForce(gpu, mw, mw, True, False) for gpu, mw in limits.items())
    d.take(PowerAckSeen(A, 1, newest, newest, "applied", told, boot="1", clock_s=d.now_s))
    d.now_s += CONFIG.settle_s + 0.5
    d.want({g("a"): 500_000, g("b"): 700_000})
    charged = charged_mw(d.power)
    for _ in range(6):
        d.hear(with_a_card_more(d, 300_000), *(page for page in d.reports() if page.node == B))
        d.advance(4.0)
        free = free_mw(d.power, d.config, d.now_s)
        assert free >= 0 or charged_mw(d.power) <= charged, "above the budget nothing may be promised"
        charged = charged_mw(d.power)
