"""Restarts of a graph: optional on the wire, so a reader of an earlier day takes command and acknowledgement."""

from __future__ import annotations

import json

import pytest

from bus_schemas import codec, v1
from tests.contract.bus import WHEN
from tests.contract.messages.frozen_v1 import FrozenDeploymentControl, FrozenScalingAck

ORDER = v1.RestartOrder(restart_id="r1", order=("decode", "prefill"))


@pytest.mark.parametrize("before", [{"action": "pin", "replicas": {"decode": 2}}, {"action": "resume"}])
def test_a_reader_of_an_earlier_day_sees_the_command_before(before: dict[str, object]) -> None:
    plain = v1.DeploymentControl.model_validate({"time": WHEN, "deployment": "prod", **before})
    body = codec.encode(plain.model_copy(update={"restart": ORDER}))
    assert FrozenDeploymentControl.model_validate_json(body) == FrozenDeploymentControl.model_validate_json(
        codec.encode(plain)
    )
    assert codec.decode_as(v1.DeploymentControl, body).restart == ORDER
    assert "restart" not in json.loads(codec.encode(plain))


def test_a_reader_of_an_earlier_day_takes_an_acknowledgement_with_a_restart() -> None:
    plain = v1.ScalingAck(
        time=WHEN, deployment="prod", decision_id=3, scaled_decision_id=3, status=v1.AckStatus.APPLIED
    )
    progress = v1.RestartProgress(restart_id="r1", phase="restarting", in_progress=("decode",))
    body = codec.encode(plain.model_copy(update={"restart": progress}))
    assert FrozenScalingAck.model_validate_json(body) == FrozenScalingAck.model_validate_json(codec.encode(plain))
    assert codec.decode_as(v1.ScalingAck, body).restart == progress
    assert "restart" not in json.loads(codec.encode(plain))
