"""Holds on a node's GPUs: optional on the wire, so a reader of an earlier day sees a command that changes nothing."""

from __future__ import annotations

import json

from bus_schemas import codec, v1
from tests.contract.bus import WHEN
from tests.contract.previous.previous_contract import as_read_before

PLAIN = v1.NodeControl(time=WHEN, node="n", action="restore")
HOLD = v1.GpuHold(hold_id="h", gpus=("GPU-0",), cap_watts=400.0)


def test_a_reader_of_an_earlier_day_sees_a_node_that_is_there() -> None:
    held = json.loads(codec.encode(PLAIN.model_copy(update={"hold": HOLD})))
    assert as_read_before(held) == json.loads(codec.encode(PLAIN))


def test_a_command_without_a_hold_is_written_as_before() -> None:
    assert "hold" not in json.loads(codec.encode(PLAIN))
    body = codec.encode(PLAIN.model_copy(update={"hold": HOLD}))
    assert codec.decode_as(v1.NodeControl, body).hold == HOLD
