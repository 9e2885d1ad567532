"""What a ledger must not forget and must not keep: a parked node that reboots, and a bus that was put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from planner.core.power import site_ledger
from planner.core.power.incarnation import FOREIGN_EPOCH, knows_more, refuses
from planner.core.power.site_state import charged_mw
from planner.domain.observation import GpuCapInForce, NodeCommand, Observation, PowerAckSeen, StoredCaps
from planner.domain.plan import PowerDecision
from planner.domain.units import Milliwatts
from tests.unit.planner.core.power.ledger_fixture import CONFIG, HIGH, LOW, A, B, Desk, answer, desk, g, seen

SITE = replace(CONFIG, budget_mw=Milliwatts(1_000_000), lease_s=9.0, settle_s=1.0)


def follow(d: Desk, *, boot_of_a: str, for_s: float, limits: dict[str, int]) -> list[str]:
    """Calm weather: decisions are carried out, answered and reported. Who was sent one."""
    sent = []
    end_s = d.now_s + for_s
    while d.now_s < end_s:
        d.now_s += 0.5
        for node, order in d.advance().items():
            sent.append(node)
            limits[node] = order.caps[0].setpoint.cap_mw
            boot = boot_of_a if node == "a" else "1"
            d.take(answer(order, d.now_s, boot=boot))
        d.receive(seen("a", (limits["a"],), d.now_s, boot=boot_of_a), seen("b", (limits["b"],), d.now_s))
    return sent


def test_a_parked_node_that_reboots_gives_its_default_watts_back() -> None:
    """No other node may be squeezed forever by a limit that its new process took down long ago."""
    d = desk(SITE, per_node=1)
    d.settled({g("a"): LOW, g("b"): HIGH})
    d.receive(seen("a", (HIGH,), d.now_s + 1.0, boot="2"))
    assert d.charge(g("a")) == HIGH, "a reboot put the limit at its default"
    d.receive(seen("a", (LOW,), d.now_s + 10.0, boot="2"))
    assert d.charge(g("a")) == HIGH, "telemetry frees nothing"
    limits = {"a": LOW, "b": HIGH}
    sent = follow(d, boot_of_a="2", for_s=30.0, limits=limits)
    assert "a" in sent, "only the answer to a later decision frees the charge"
    assert (d.charge(g("a")), limits["b"]) == (LOW, HIGH)


def test_a_parked_node_at_rest_is_sent_nothing() -> None:
    d = desk(SITE, per_node=1)
    d.settled({g("a"): LOW, g("b"): 500_000})
    sent = follow(d, boot_of_a="1", for_s=30.0, limits={"a": LOW, "b": 500_000})
    assert "a" not in sent


def restored(copy: Mapping[str, PowerDecision], *, doubted: bool, highest_mw: int | None = HIGH) -> Desk:
    """A leader over what a copy of the bus holds."""
    stored = [
        StoredCaps(
            order.node,
            order.decision_id,
            {cap.gpu: cap.setpoint for cap in order.caps},
            {cap.gpu: cap.charged_mw or 0 for cap in order.caps},
            highest_mw={} if highest_mw is None else {cap.gpu: highest_mw for cap in order.caps},
        )
        for order in copy.values()
    ]
    d = Desk(replace(SITE, budget_mw=Milliwatts(900_000)), 5_000.0)
    d.power = site_ledger.initial(d.config, 2, d.now_s, stored, doubted=doubted)
    return d


def copied() -> dict[str, PowerDecision]:
    """Decisions that gave a 500 W and b 400 W; since then, unknown to the copy, b was given 500 W and is dead."""
    d = desk(replace(SITE, budget_mw=Milliwatts(900_000)), per_node=1)
    d.settled({g("a"): 500_000, g("b"): 400_000})
    d.now_s += 9.0
    d.receive(*d.reports())
    return d.advance()


def test_over_an_old_copy_no_agent_is_let_back_up_and_the_silent_are_charged_their_highest_limits() -> None:
    d = restored(copied(), doubted=True)
    d.want({g("a"): 500_000, g("b"): 400_000})
    d.receive(seen("a", (400_000,), d.now_s))
    first = d.advance()["a"]
    assert first.only_lowers, "500 W were a's when the copy was made: they may be b's by now"
    d.take(answer(first, d.now_s, {g("a"): 400_000}, epoch=2))
    d.now_s += SITE.lease_s + 3.0
    d.receive(seen("a", (400_000,), d.now_s))
    later = d.advance()
    assert d.charge(g("b")) == HIGH
    assert charged_mw(d.power) >= 400_000 + HIGH
    assert d.caps(later)[g("a")] == LOW


def test_over_an_old_copy_a_node_that_answered_does_not_climb_back_before_the_silent_are_charged() -> None:
    """Its inherited cap may have been lent to a dead node since: until the first raise every decision only lowers."""
    d = restored(copied(), doubted=True)
    d.want({g("a"): 500_000, g("b"): 400_000})
    d.receive(seen("a", (400_000,), d.now_s))
    first = d.advance()["a"]
    d.take(answer(first, d.now_s, {g("a"): 400_000}, epoch=2))
    renewed = []
    while d.now_s < d.power.raises_from_s - 1.0:
        d.now_s += 1.0
        d.receive(seen("a", (400_000,), d.now_s))
        renewed += [order for node, order in d.advance().items() if node == "a"]
    assert renewed
    assert all(order.only_lowers for order in renewed)


def test_the_doubt_of_an_old_copy_outlives_the_leader_that_doubts() -> None:
    d = restored(copied(), doubted=True)
    d.receive(seen("a", (400_000,), d.now_s))
    written = d.advance()
    assert set(written) == {"a", "b"}, "b has not reported yet, and the next leader reads only the bus"
    assert all(order.only_lowers for order in written.values())
    d.take(answer(written["a"], d.now_s, {g("a"): 400_000}, epoch=2))
    successor = restored(written, doubted=False)
    successor.want({g("a"): 500_000, g("b"): 400_000})
    successor.receive(seen("a", (400_000,), successor.now_s))
    for _ in range(20):
        for order in successor.advance(1.0).values():
            assert not order.raises, "b was given 500 W after the copy"
            if order.node == A:
                successor.take(answer(order, successor.now_s, epoch=2))
        successor.receive(seen("a", (400_000,), successor.now_s))
    assert successor.charge(g("b")) == HIGH


def test_an_answer_that_knows_more_than_the_bus_is_written_down_at_once() -> None:
    d = restored(copied(), doubted=False)
    d.receive(seen("a", (400_000,), d.now_s), seen("b", (400_000,), d.now_s))
    first = d.advance()
    late = answer(first["a"], d.now_s, {g("a"): 400_000}, epoch=99)
    d.take(late)
    (again,) = [order for node, order in d.advance(0.1).items() if node == "b"]
    assert {cap.charged_mw for cap in again.caps} == {HIGH}


def test_a_limit_that_stands_below_its_cap_is_sent_it_again() -> None:
    """The agent could not raise for a decision that came too late; no later one would come by itself."""
    d = desk(replace(SITE, fallback_mw=Milliwatts(300_000)), per_node=1)
    d.settled({g("a"): 250_000, g("b"): LOW})
    d.now_s += 1.0
    newest = d.power.nodes[A].next_id - 1
    gpus = (GpuCapInForce(g("a"), LOW, LOW, True, False),)
    d.take(PowerAckSeen(A, 1, newest, newest, "partial", gpus, boot="1", clock_s=d.now_s))
    limits = {"a": LOW, "b": LOW}
    assert "a" in follow(d, boot_of_a="1", for_s=10.0, limits=limits)
    assert "a" not in follow(d, boot_of_a="1", for_s=30.0, limits=limits), "once it has followed it is at rest"


def test_a_node_that_answers_is_believed_again() -> None:
    d = restored(copied(), doubted=True)
    d.want({g("a"): 400_000, g("b"): 500_000})
    limits = {"a": 400_000, "b": 500_000}
    d.receive(seen("a", (400_000,), d.now_s), seen("b", (500_000,), d.now_s))
    end_s = d.now_s + 40.0
    while d.now_s < end_s:
        d.now_s += 0.5
        for node, order in d.advance().items():
            cap = order.caps[0].setpoint.cap_mw
            limits[node] = min(limits[node], cap) if order.only_lowers else cap
            d.take(answer(order, d.now_s, {order.caps[0].gpu: limits[node]}, epoch=2))
        d.receive(seen("a", (limits["a"],), d.now_s), seen("b", (limits["b"],), d.now_s))
        assert sum(limits.values()) <= 900_000
    assert limits == {"a": 400_000, "b": 500_000}


def test_where_a_highest_limit_is_not_known_the_largest_of_the_site_serves() -> None:
    d = restored(copied(), doubted=True, highest_mw=None)
    d.receive(seen("a", (400_000,), d.now_s))
    d.advance(SITE.lease_s + 3.0)
    assert d.charge(g("b")) == HIGH


@pytest.mark.parametrize(("epoch", "decision_id"), [(7, 0), (2, 90)])
def test_an_answer_that_knows_more_than_the_bus_proves_a_restore(epoch: int, decision_id: int) -> None:
    copy = copied()
    d = restored(copy, doubted=False)
    d.receive(seen("a", (400_000,), d.now_s))
    later = replace(answer(copy["a"], d.now_s, epoch=epoch), decision_id=max(decision_id, copy["a"].decision_id))
    d.take(later)
    assert d.power.doubted
    d.advance(SITE.lease_s + 3.0)
    assert d.charge(g("b")) == HIGH


def test_a_usual_fail_over_doubts_nothing() -> None:
    copy = copied()
    d = restored(copy, doubted=False)
    d.receive(seen("a", (500_000,), d.now_s), seen("b", (400_000,), d.now_s))
    d.take(
        answer(copy["a"], d.now_s, epoch=1), replace(answer(copy["b"], d.now_s, epoch=FOREIGN_EPOCH), decision_id=999)
    )
    orders = d.advance()
    assert not d.power.doubted
    assert set(orders) == {A, B}
    assert not any(order.only_lowers for order in orders.values())
    d.advance(SITE.lease_s + 3.0)
    assert charged_mw(d.power) == 900_000


def test_what_an_answer_proves() -> None:
    seen_by_a = replace(answer(copied()["a"], 1.0, epoch=7), decision_id=4, incarnation="i")
    assert knows_more(seen_by_a, 6, 5)
    assert knows_more(seen_by_a, 7, 4)
    assert not knows_more(seen_by_a, 7, 5)
    assert not knows_more(replace(seen_by_a, epoch=FOREIGN_EPOCH), 6, 0)
    assert refuses(seen_by_a, 6, "i")
    assert not refuses(seen_by_a, 6, "another")
    assert not refuses(seen_by_a, 7, "i")


def test_an_agent_that_took_an_old_decision_for_the_newest_is_counted_anew() -> None:
    """Its new process had met neither incarnation, and followed the one whose decision was delivered again."""
    seen_by_a = PowerAckSeen(A, 6, 4, 4, "rejected", (), incarnation="old")
    assert refuses(seen_by_a, 9, "new")
    assert not refuses(replace(seen_by_a, incarnation="new"), 9, "new"), "it refused an older one of ours"
    assert not refuses(replace(seen_by_a, status="applied"), 9, "new"), "the new one is under way"
    assert not refuses(replace(seen_by_a, incarnation=""), 9, "new")


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (None, "expected_gpus is not set and 2 GPUs have reported"),
        (1, "2 GPUs have reported and expected_gpus says 1"),
        (2, ""),
        (9, "7 of 9 expected GPUs have never been reported: 4900 W are charged"),
    ],
)
def test_gpus_without_a_report_are_noted(expected: int | None, words: str) -> None:
    d = desk(replace(SITE, expected_gpus=expected), per_node=1)
    notes = [n.sentence for n in site_ledger.summary(d.power, d.config, d.now_s).notes if n.reason == "expected_gpus"]
    assert [words in note for note in notes] == ([True] if words else [])


def test_an_order_to_remove_a_node_is_void_for_a_leader_in_doubt_and_a_new_one_is_not() -> None:
    d = restored(copied(), doubted=True)
    for issued_s, left in ((d.now_s - 60.0, True), (d.now_s + 1.0, False)):
        d.now_s = max(d.now_s, issued_s)
        command = NodeCommand(B, "remove", int(issued_s), "", issued_s)
        d.power = site_ledger.absorb(d.power, Observation(node_commands=(command,)), d.config, d.now_s)
        assert (B in d.power.nodes) is left
