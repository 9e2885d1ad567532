"""Phases of a scaling acknowledgement: optional on the wire, so a reader of an earlier day takes every one of them."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime

import pytest

from bus_schemas import codec, v1
from bus_schemas.jetstream.completed import CompletedDecisions, Completion
from planner.adapters import from_wire
from tests.contract.bus import scaling
from tests.contract.messages.frozen_v1 import FrozenScalingAck

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def ack(status: v1.AckStatus, phase: v1.AckPhase | None, scaled: int = 3) -> v1.ScalingAck:
    return v1.ScalingAck(
        time=AT,
        deployment="prod",
        decision_id=3,
        scaled_decision_id=scaled,
        incarnation="one",
        status=status,
        phase=phase,
        pools={"decode": v1.PoolProgress(ready=1, wanted=2)},
        replicas={"decode": 1},
        external_decision_id=9,
    )


@pytest.mark.parametrize(("status", "phase"), list(itertools.product(v1.AckStatus, [None, *v1.AckPhase])))
def test_a_reader_of_an_earlier_day_takes_every_acknowledgement(
    status: v1.AckStatus, phase: v1.AckPhase | None
) -> None:
    body = codec.encode(ack(status, phase))
    old = json.loads(FrozenScalingAck.model_validate_json(body).model_dump_json())
    assert old == {key: value for key, value in json.loads(body).items() if key in old} | {"time": old["time"]}
    assert {"phase", "pools", "external_decision_id"} == set(json.loads(body)) - set(old)


def test_an_acknowledgement_of_an_earlier_day_has_no_phase() -> None:
    body = json.loads(codec.encode(ack(v1.AckStatus.APPLIED, v1.AckPhase.DRAINED)))
    for name in ("phase", "pools", "external_decision_id"):
        body.pop(name)
    read = codec.decode_as(v1.ScalingAck, json.dumps(body).encode())
    assert (read.phase, read.pools, read.external_decision_id) == (None, {}, None)


def test_the_second_acknowledgement_of_a_decision_changes_nothing_that_was_completed() -> None:
    done = CompletedDecisions()
    for phase in (v1.AckPhase.DRAINING, v1.AckPhase.DRAINED):
        done.learn(ack(v1.AckStatus.APPLIED, phase))
        assert done.verdict(scaling("prod", 3)) is Completion.DONE
        assert done.verdict(scaling("prod", 4)) is Completion.FRESH
        assert from_wire.scaling_ack(ack(v1.AckStatus.APPLIED, phase)).scaled_decision_id == 3


def test_starting_is_not_complete() -> None:
    begun = ack(v1.AckStatus.ACCEPTED, v1.AckPhase.STARTING, scaled=2)
    _, flow = from_wire.last_decision(scaling("prod", 3), begun)
    assert not flow.ready
