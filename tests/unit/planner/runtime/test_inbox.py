"""The inbox: events once and never lost, telemetry as a state, and only what speaks of our decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bus_schemas import v1
from planner.domain.ids import DeploymentId, NodeId
from planner.runtime.inbox import Inbox

START = datetime(2026, 1, 1, tzinfo=UTC)
CHAT = DeploymentId("prod-chat")


class Bell:
    """A clock that the test sets, and a count of the rings."""

    def __init__(self) -> None:
        self.now_s = START.timestamp()
        self.urgent = self.soon = 0
        self.named: list[str] = []
        self.inbox = Inbox(
            self.ring,
            self.ring_soon,
            lambda: self.now_s,
            0.0,
            implausible=lambda who, flaw: self.named.append(f"{who}: {flaw}"),
        )
        self.inbox.begin()

    def ring(self) -> None:
        self.urgent += 1

    def ring_soon(self) -> None:
        self.soon += 1


def telemetry(node: str = "node-1", at_s: float = 0.0) -> v1.NodeTelemetry:
    gpu = v1.GpuTelemetry(gpu="GPU-1", default_watts=700, min_watts=200, max_watts=700, health=v1.GpuHealth.UNCAPPABLE)
    return v1.NodeTelemetry(time=START + timedelta(seconds=at_s), node=node, boot="b", clock_s=7.0, gpus=(gpu,))


def power_ack(decision_id: int) -> v1.PowerAck:
    force = v1.GpuInForce(gpu="GPU-1", requested_watts=300, enforced_watts=299.9996)
    return v1.PowerAck(
        time=START,
        node="node-1",
        decision_id=decision_id,
        applied_decision_id=decision_id,
        epoch=3,
        status=v1.AckStatus.APPLIED,
        gpus=(force,),
    )


def scaling_ack(incarnation: str, scaled: int) -> v1.ScalingAck:
    return v1.ScalingAck(
        time=START,
        deployment=CHAT,
        decision_id=scaled,
        scaled_decision_id=scaled,
        incarnation=incarnation,
        status=v1.AckStatus.APPLIED,
        replicas={"decode": 2},
    )


def budget(watts: float) -> v1.BudgetChange:
    return v1.BudgetChange(time=START, site="row-1", budget_watts=watts)


def test_events_are_handed_over_once_and_back_when_a_step_failed() -> None:
    bell = Bell()
    bell.inbox.received(power_ack(0), 1)
    bell.inbox.received(budget(3000), 2)
    first = bell.inbox.take({})
    assert [ack.decision_id for ack in first.power_acks] == [0]
    assert first.power_acks[0].gpus[0].enforced_mw == 299_999, "rounded down: a cap never gains by rounding"
    bell.inbox.received(power_ack(1), 3)
    bell.inbox.put_back(first)
    again = bell.inbox.take({})
    assert [ack.decision_id for ack in again.power_acks] == [0, 1]
    assert [order.budget_mw for order in again.budget_commands] == [3_000_000]
    assert bell.inbox.take({}).power_acks == ()
    assert bell.urgent == 3


def test_telemetry_gathers_and_stays_the_same_object_until_there_is_a_newer_one() -> None:
    bell = Bell()
    bell.inbox.received(telemetry(), 1)
    assert (bell.urgent, bell.soon) == (0, 1)
    one, two = bell.inbox.take({}), bell.inbox.take({})
    assert one.nodes[NodeId("node-1")] is two.nodes[NodeId("node-1")]
    assert not one.nodes[NodeId("node-1")].gpus[next(iter(one.nodes[NodeId("node-1")].gpus))].healthy
    bell.inbox.received(telemetry(at_s=1.0), 2)
    assert bell.inbox.take({}).nodes[NodeId("node-1")] is not one.nodes[NodeId("node-1")]


def test_a_new_term_knows_how_old_everything_is() -> None:
    bell = Bell()
    bell.inbox.rest()
    bell.inbox.received(telemetry("live"), 1)
    bell.inbox.received(power_ack(0), 2)
    bell.now_s += 20.0
    bell.inbox.begin()
    bell.inbox.restart(((telemetry("stored", at_s=5.0), 9), (budget(2000), 10)))
    seen = bell.inbox.take({})
    assert seen.nodes[NodeId("live")].age_s == 20.0
    assert seen.nodes[NodeId("stored")].age_s == 15.0
    assert seen.power_acks == (), "events of another term's state are not ours"
    assert [order.sequence for order in seen.budget_commands] == [10]
    assert [node.node for node in bell.inbox.fresh_nodes(16.0)] == ["stored"]


def test_acknowledgements_of_another_incarnation_are_not_for_us() -> None:
    bell = Bell()
    bell.inbox.expect(CHAT, "new")
    bell.inbox.received(scaling_ack("old", 99), 1)
    assert bell.inbox.take({}).scaling_acks == {}
    bell.inbox.received(scaling_ack("new", 1), 2)
    assert bell.inbox.take({}).scaling_acks[CHAT].scaled_decision_id == 1
    assert bell.inbox.acked_replicas(CHAT) == {"decode": 2}


def test_a_node_that_answers_another_incarnation_frees_nothing() -> None:
    """Its ids are others' ids: decisions were lost with their stream, and an answer to the old number 3 proves nothing
    of ours. That what it says of the hardware may raise a charge is left."""
    bell = Bell()
    bell.inbox.received(power_ack(3).model_copy(update={"incarnation": "old"}), 1)
    bell.inbox.expect_power(NodeId("node-1"), "new")
    bell.inbox.received(power_ack(4).model_copy(update={"incarnation": "new"}), 2)
    first, second = bell.inbox.take({}).power_acks
    assert (first.decision_id, first.epoch) == (3, -1), "as an answer to a predecessor"
    assert (second.decision_id, second.epoch) == (4, 3)


def test_what_is_not_for_planners_wakes_none() -> None:
    bell = Bell()
    bell.inbox.received(v1.Lease(time=START, holder="x", ttl_s=1.0), 1)
    assert (bell.urgent, bell.soon) == (0, 0)


def test_nothing_falls_between_the_reading_of_the_streams_and_the_listening() -> None:
    """What arrives while a new leader reads is newer than what it read, and counts after it."""
    bell = Bell()
    bell.inbox.received(power_ack(8), 4)
    bell.inbox.received(scaling_ack("i", 3), 5)
    bell.inbox.received(budget(1000), 6)
    bell.inbox.restart(((power_ack(7), 3), (scaling_ack("i", 2), 2), (budget(2000), 1)))
    seen = bell.inbox.take({})
    assert [ack.decision_id for ack in seen.power_acks] == [7, 8]
    assert seen.scaling_acks[CHAT].scaled_decision_id == 3
    assert [order.sequence for order in seen.budget_commands] == [1, 6]


def test_a_standby_keeps_telemetry_and_piles_nothing_up() -> None:
    bell = Bell()
    bell.inbox.rest()
    for index in range(1000):
        bell.inbox.received(power_ack(index), index)
        bell.inbox.received(budget(index), index)
    bell.inbox.received(telemetry(), 1)
    seen = bell.inbox.take({})
    assert (seen.power_acks, seen.budget_commands) == ((), ())
    assert list(seen.nodes) == ["node-1"]
    assert (bell.urgent, bell.soon) == (0, 0)


def test_a_report_that_cannot_be_true_is_as_one_that_did_not_come() -> None:
    bell = Bell()
    bell.inbox.received(telemetry(), 1)
    known = bell.inbox.take({}).nodes[NodeId("node-1")]
    bell.now_s += 20.0
    (card,) = telemetry().gpus
    extreme = telemetry(at_s=20.0).model_copy(update={"gpus": (card.model_copy(update={"default_watts": 1e9}),)})
    bell.inbox.received(extreme, 2)
    assert bell.inbox.take({}).nodes[NodeId("node-1")] is known
    assert bell.inbox.fresh_nodes(15.0) == [], "its age goes on"
    assert bell.soon == 1
    (named,) = bell.named
    assert named.startswith("node-1: a wattscale.v1.node_telemetry is left out: GPU GPU-1: default_watts 1,000,000,000")
    bell.inbox.received(telemetry(at_s=21.0), 3)
    assert bell.inbox.take({}).nodes[NodeId("node-1")] is not known
    assert bell.inbox.fresh_nodes(15.0)


def test_a_draw_that_cannot_be_true_is_unknown_and_named() -> None:
    bell = Bell()
    (card,) = telemetry().gpus
    broken = telemetry().model_copy(update={"gpus": (card.model_copy(update={"draw_watts": 1e9}),)})
    bell.inbox.received(broken, 1)
    (gpu,) = bell.inbox.take({}).nodes[NodeId("node-1")].gpus.values()
    assert (gpu.draw_mw, gpu.default_mw) == (None, 700_000)
    assert bell.named[0].startswith("node-1: a draw is taken as unknown: GPU GPU-1: draw_watts")


def test_a_standby_names_what_cannot_be_true_too() -> None:
    bell = Bell()
    bell.inbox.rest()
    bell.inbox.received(power_ack(2**53), 1)
    assert bell.named[0].startswith("node-1: a wattscale.v1.power_ack is left out: decision id")


def test_a_hold_is_no_command_on_the_node_and_comes_once() -> None:
    bell = Bell()
    held = v1.GpuHold(hold_id="h", gpus=("GPU-1",), cap_watts=400.0, for_s=20.0)
    control = v1.NodeControl(time=START, node="node-1", action="restore", issued_by="ops", hold=held)
    bell.inbox.received(control, 4)
    seen = bell.inbox.take({})
    assert seen.node_commands == ()
    (hold,) = seen.hold_commands
    assert (hold.node, hold.gpus, hold.cap_mw, hold.sequence, hold.release) == ("node-1", ("GPU-1",), 400_000, 4, False)
    assert hold.until_s == START.timestamp() + 20.0
    assert bell.inbox.take({}).hold_commands == ()
    bell.inbox.put_back(seen)
    assert bell.inbox.take({}).hold_commands == (hold,)
