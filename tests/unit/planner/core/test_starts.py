"""How many replicas may still start: what reports, decisions and acknowledgements prove, each of which may be late."""

from __future__ import annotations

from dataclasses import replace

from planner.core import starts
from planner.core.placement import GpuInventory
from planner.core.power import site_ledger
from planner.core.state import Flow, Starts
from planner.domain.config import Covers, SiteConfig
from planner.domain.ids import GpuId
from planner.domain.observation import Observation, PowerAckSeen
from planner.domain.units import Milliwatts
from tests.unit.planner.core.power.ledger_fixture import A, B, answer, at, g, seen
from tests.unit.planner.core.small_site import DECODE, PREFILL, SITE, D, deployment, pool

CONFIG = deployment({PREFILL: pool(PREFILL, gpus_per_replica=2), DECODE: pool(DECODE)})
WORKERS = SiteConfig(SITE, Milliwatts(2_000_000), covers=Covers.WORKERS, deployments=frozenset({D}))


def living(*pods: str) -> GpuInventory:
    """An inventory in which these decode pods live, each on a GPU of its own."""
    found = frozenset((GpuId(f"g-{pod}"), pod) for pod in pods)
    return GpuInventory({(D, DECODE): [gpu for gpu, _ in found]}, {}, {(D, DECODE): found})


def decided(flow: Flow, count: int, inventory: GpuInventory) -> Flow:
    """The flow after a decision of ``count`` decode replicas, as ``publishable`` makes it."""
    known = starts.decided(flow, {DECODE: count}, {DECODE: 1}, starts.workers_now(inventory, CONFIG, flow))
    return replace(flow, decision_id=flow.decision_id + 1, published={DECODE: count}, starts=known)


def to_start(flow: Flow, inventory: GpuInventory) -> int:
    return starts.to_start(inventory, CONFIG, flow)[DECODE]


def test_before_the_first_decision_nothing_starts() -> None:
    assert to_start(Flow(), living("a", "b")) == 0


def test_a_scale_up_starts_until_reports_show_its_pods() -> None:
    flow = decided(Flow(), 3, living("a"))
    assert to_start(flow, living("a")) == 2
    assert to_start(flow, living("a", "b")) == 1
    assert to_start(flow, living("a", "b", "c")) == 0


def test_a_replica_of_two_gpus_starts_on_two() -> None:
    flow = replace(Flow(0, {PREFILL: 2}), starts=Starts({PREFILL: 2}, {PREFILL: 0}, {}))
    assert starts.to_start(living(), CONFIG, flow)[PREFILL] == 4


def test_a_late_report_s_pods_may_be_leaving_already() -> None:
    """Three down to one and up to three again: reports of before still show all three, and two more may start."""
    before = living("a", "b", "c")
    down = decided(decided(Flow(), 3, before), 1, before)
    up = decided(down, 3, before)
    assert to_start(up, before) == 2
    assert to_start(up, living("a", "x")) == 1
    assert to_start(up, living("a", "x", "y")) == 0


def test_a_scale_up_that_was_replaced_may_still_come() -> None:
    flow = decided(decided(Flow(), 4, living("a")), 2, living("a"))
    assert to_start(flow, living("a")) == 3
    assert flow.starts.at_most == {DECODE: 4}


def test_the_pods_let_go_may_be_those_in_reports_while_new_ones_are_in_none() -> None:
    """Two more start on a node whose agent is dead; of the four the two that reports show are let go; two more start.

    The dead node's last report shows the first two all the time.
    """
    old = living("a", "b")
    up = decided(decided(Flow(), 2, old), 4, old)
    assert to_start(up, old) == 2, "c and d"
    down = decided(up, 2, old)
    assert to_start(down, old) == 2, "c and d still: a scale-down starts nothing"
    again = decided(down, 4, old)
    assert to_start(again, old) == 4, "c, d, e and f, while a and b drain"


def test_what_was_let_go_may_drain_in_no_report_while_others_start() -> None:
    """Two start on a node that is cut off and are let go; they drain there, unseen, while two more start elsewhere."""
    up = decided(Flow(), 2, living())
    down = replace(decided(up, 0, living()), scaled_decision_id=1)
    assert to_start(down, living()) == 2, "a and b: nothing is known of the node that is cut off"
    again = decided(down, 2, living())
    assert again.starts.at_most == {DECODE: 4}
    assert to_start(again, living()) == 4, "a and b, which drain, and c and d"
    assert to_start(again, living("c", "d")) == 2, "a and b drain still"


def test_a_scale_down_reserves_nothing() -> None:
    before = living("a", "b", "c", "d")
    full = decided(decided(Flow(), 4, living()), 4, before)
    down = decided(full, 2, before)
    assert to_start(down, before) == 0
    assert to_start(down, living("a", "b")) == 0
    assert to_start(down, living("a")) == 1, "one that was to stay is gone: another may take its place"
    up = decided(down, 3, before)
    assert to_start(up, before) == 1
    assert to_start(up, living("a", "b", "x")) == 0


def test_a_new_leader_takes_every_pod_for_one_that_may_leave() -> None:
    inherited = Flow(7, {DECODE: 3}, 6, starts=Starts({DECODE: 4}, {DECODE: 2}))
    assert to_start(inherited, living("a", "b", "c", "d")) == 2
    later = decided(inherited, 3, living("a", "b", "c", "d"))
    assert later.starts.old is None, "which pods are old is known once every node has reported since an answer"
    assert to_start(later, living("a", "b", "c")) == 2


def absorbed(state: site_ledger.PowerState, now_s: float, *acks: PowerAckSeen) -> site_ledger.PowerState:
    """After a report of node ``a`` and ``acks``."""
    nodes = {A: seen("a", (700_000, 700_000), now_s)}
    return site_ledger.absorb(state, Observation(nodes=nodes, power_acks=acks), WORKERS, now_s)


def carried_out(flow: Flow, inventory: GpuInventory, power: site_ledger.PowerState, now_s: float) -> Flow:
    return starts.outcome(flow, inventory, CONFIG, power, WORKERS, now_s).flow


def test_pods_stay_once_all_nodes_have_reported_since_the_answer() -> None:
    desk = site_ledger.initial(replace(WORKERS, answer_s=0.0), 1, 0.0, ())
    flow = replace(decided(Flow(), 2, living("a", "b", "c")), scaled_decision_id=0)
    flow = carried_out(flow, living("a", "b", "c"), desk, 10.0)
    assert flow.starts.done_s == 10.0
    reported = absorbed(desk, 11.0)
    assert carried_out(flow, living("a", "b"), reported, 11.0) is flow, "a report proves no time"
    ordered, orders = site_ledger.advance(reported, WORKERS, 12.0)
    assert carried_out(flow, living("a", "b"), ordered, 12.0) is flow
    answered = absorbed(ordered, 13.0, *[answer(order, 12.5) for order in orders])
    settled = carried_out(flow, living("a", "b"), answered, 13.0)
    assert settled.starts.at_most == {DECODE: 2}
    assert to_start(settled, living("a", "b")) == 0


def test_while_gpus_are_unreported_what_was_let_go_may_drain_there() -> None:
    """Two of eight GPUs are reported, and one of two pods is let go: it may still drain where no agent reports."""
    site = replace(WORKERS, answer_s=0.0, expected_gpus=8)
    flow = replace(decided(decided(Flow(), 2, living()), 1, living()), scaled_decision_id=1)
    desk = absorbed(site_ledger.initial(site, 1, 0.0, ()), 1.0)
    flow = starts.outcome(flow, living(), CONFIG, desk, site, 10.0).flow
    ordered, orders = site_ledger.advance(absorbed(desk, 11.0), site, 12.0)
    answered = absorbed(ordered, 13.0, *[answer(order, 12.5) for order in orders])
    waiting = starts.outcome(flow, living(), CONFIG, answered, site, 13.0).flow
    assert to_start(decided(waiting, 2, living()), living()) == 3, "the one that drains, and two"
    assert (
        to_start(decided(starts.outcome(flow, living(), CONFIG, answered, WORKERS, 13.0).flow, 2, living()), living())
        == 2
    )


def test_a_node_that_is_sent_nothing_is_asked() -> None:
    """A parked node is not renewed: it would never answer a decision that was sent after the acknowledgement."""
    desk, orders = site_ledger.advance(absorbed(site_ledger.initial(WORKERS, 1, 0.0, ()), 1.0), WORKERS, 5.0)
    rested = absorbed(desk, 6.0, *[answer(order, 5.5) for order in orders])
    flow = replace(decided(Flow(), 2, living()), scaled_decision_id=0)
    flow = carried_out(flow, living("a", "b"), rested, 10.0)
    found = starts.outcome(flow, living("a", "b"), CONFIG, rested, WORKERS, 11.0)
    assert found.flow == flow
    assert found.ask == {A}
    assert not found.silent
    asked, orders = site_ledger.advance(site_ledger.ask(absorbed(rested, 11.0), found.ask), WORKERS, 11.0)
    assert [order.node for order in orders] == [A]
    waiting = absorbed(asked, 11.2, *[answer(order, 11.5) for order in orders])
    found = starts.outcome(flow, living("a", "b"), CONFIG, waiting, WORKERS, 11.6)
    assert (found.flow, found.ask) == (flow, frozenset()), "it is asked once, and its next report is awaited"
    assert to_start(carried_out(flow, living("a", "b"), absorbed(waiting, 12.0), 12.0), living("a", "b")) == 0


def covered_gpus(power: site_ledger.PowerState) -> dict[str, int]:
    return {name: sum(node.covered or ()) for name, node in power.nodes.items()}


def test_a_node_that_died_is_charged_in_whole_instead_of_a_start_that_never_ends() -> None:
    """Four were to run when it died, two are to run now: the other two may be on any of its GPUs until it answers."""
    desk = site_ledger.initial(WORKERS, 1, 0.0, ())

    def reported(state: site_ledger.PowerState, now_s: float, *names: str) -> site_ledger.PowerState:
        nodes = [seen(name, (200_000, 200_000), now_s) for name in names]
        return site_ledger.absorb(state, Observation(nodes={n.node: n for n in nodes}), WORKERS, now_s)

    def step(state: site_ledger.PowerState, now_s: float, *names: str) -> site_ledger.PowerState:
        state, orders = site_ledger.advance(reported(state, now_s, *names), WORKERS, now_s)
        acks = tuple([answer(order, now_s + 0.5) for order in orders if order.node in names])
        return site_ledger.absorb(state, Observation(power_acks=acks), WORKERS, now_s + 0.5)

    desk = site_ledger.want(reported(desk, 1.0, A, B), {})
    for second in range(2, 20):
        desk = step(desk, float(second), A, B)
    assert covered_gpus(desk) == {A: 0, B: 0}
    flow = replace(decided(decided(Flow(), 4, living()), 2, living()), scaled_decision_id=1)
    flow = carried_out(flow, living("a", "b"), desk, 20.0)
    desk = step(site_ledger.ask(desk, {A, B}), 21.0, A)
    desk = reported(desk, 22.0, A)
    found = starts.outcome(flow, living("a", "b"), CONFIG, desk, WORKERS, 22.0)
    assert found.flow is flow, "a node may be late"
    late_s = 22.0 + WORKERS.lease_s
    desk = reported(desk, late_s, A)
    found = starts.outcome(flow, living("a", "b"), CONFIG, desk, WORKERS, late_s)
    assert not found.ask
    assert found.silent == {B}
    assert to_start(found.flow, living("a", "b")) == 0
    desk = step(site_ledger.in_whole(desk, found.silent), late_s + 1.0, A)
    assert covered_gpus(desk) == {A: 0, B: 2}
    # It is back: its answer alone shows no pods, and a report from before the answer proves nothing.
    desk = step(desk, late_s + 30.0, A, B)
    assert covered_gpus(step(desk, late_s + 33.0, A)) == {A: 0, B: 2}
    for now_s in (33.0, 34.0):
        desk = step(desk, late_s + now_s, A, B)
    assert covered_gpus(desk) == {A: 0, B: 0}


def test_a_node_that_died_with_all_of_its_gpus_covered_stays_so_until_it_answers_again() -> None:
    """They were chosen for replicas. That they are not wanted any more shows no pod that came since its last report."""
    desk = site_ledger.initial(WORKERS, 1, 0.0, ())

    def step(state: site_ledger.PowerState, now_s: float, *names: str) -> site_ledger.PowerState:
        nodes = [seen(name, (200_000, 200_000), now_s) for name in names]
        reported = Observation(nodes={node.node: node for node in nodes})
        state, orders = site_ledger.advance(site_ledger.absorb(state, reported, WORKERS, now_s), WORKERS, now_s)
        acks = tuple([answer(order, now_s + 0.5) for order in orders if order.node in names])
        return site_ledger.absorb(state, Observation(power_acks=acks), WORKERS, now_s + 0.5)

    desk = step(desk, 1.0, A, B)
    desk = site_ledger.want(desk, {g("b", 0): at(200_000), g("b", 1): at(200_000)})
    for second in range(2, 20):
        desk = step(desk, float(second), A, B)
    assert covered_gpus(desk) == {A: 0, B: 2}
    desk = site_ledger.want(site_ledger.in_whole(desk, [B]), {})
    for second in range(20, 90):
        desk = step(desk, float(second), A)
        assert covered_gpus(desk) == {A: 0, B: 2}
    for second in range(90, 100):
        desk = step(desk, float(second), A, B)
    assert covered_gpus(desk) == {A: 0, B: 0}


def test_a_decision_that_does_not_state_how_many_may_run_is_carried_out_before_it_counts() -> None:
    """An older planner's, or one of a time in which the budget covered all GPUs."""
    flow = Flow(7, {DECODE: 3}, 6, starts=Starts(unstated=True))
    later = decided(flow, 2, living("a", "b", "c"))
    assert (later.starts.at_most, later.starts.unstated) == ({}, True), "the next leader knows as little"
    assert starts.unannounced(living("a", "b", "c", "d", "e"), CONFIG, flow) == 0
    desk = site_ledger.initial(WORKERS, 1, 0.0, ())
    done = carried_out(replace(later, scaled_decision_id=8), living("a", "b"), desk, 10.0)
    assert done.starts.unstated
    settled = carried_out(done, living("a", "b"), desk, 11.0)
    assert (settled.starts.at_most, settled.starts.unstated) == ({DECODE: 2}, False)


def test_pods_that_no_decision_started_are_counted() -> None:
    flow = decided(Flow(), 2, living("a", "b"))
    assert starts.unannounced(living("a", "b"), CONFIG, flow) == 0
    assert starts.unannounced(living("a", "b", "hpa-1", "hpa-2"), CONFIG, flow) == 2
    assert starts.unannounced(living("a", "b"), CONFIG, Flow()) == 0, "the planner found them when it came"


def test_without_any_report_replicas_wait_until_agents_had_time_to_report() -> None:
    empty = site_ledger.initial(WORKERS, 1, 0.0, ())
    assert starts.must_wait(empty, WORKERS, 0.0)
    assert not starts.must_wait(empty, WORKERS, empty.raises_from_s)
    assert starts.must_wait(empty, replace(WORKERS, expected_gpus=8), 1000.0), "there are GPUs, and nothing is known"
    assert not starts.must_wait(empty, replace(WORKERS, covers=Covers.ALL_GPUS), 0.0)
