"""Pools without GPUs on the wire: an optional map, which readers of an earlier minor version do not miss."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from bus_schemas import codec, v1
from planner.adapters import from_wire, to_wire
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.plan import Limited, Placement, ScalingDecision
from planner.domain.pool import Role
from planner.domain.reasons import ReasonCode
from tests.contract.messages.frozen_v1 import FrozenScalingDecision
from tests.unit.planner.core.small_site import DECODE, PREFILL, D, deployment

FRONTEND = PoolId("frontend")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def written(**replicas: int) -> v1.ScalingDecision:
    order = ScalingDecision(
        D,
        7,
        {PoolId(name): count for name, count in replicas.items()},
        {PREFILL: Role.PREFILL, DECODE: Role.DECODE, FRONTEND: Role.FRONTEND},
        (Placement(PREFILL, "n", ("g0",)),),  # type: ignore[arg-type]
        (Limited(2, ReasonCode.SLA, "why"),),
    )
    return to_wire.scaling_decision(order, deployment(), epoch=3, incarnation="i", at=AT)


def test_a_reader_of_an_earlier_day_takes_the_whole_decision() -> None:
    body = codec.encode(written(prefill=2, decode=3, frontend=4))
    old = FrozenScalingDecision.model_validate_json(body)
    new = codec.decode_as(v1.ScalingDecision, body)
    known = json.loads(old.model_dump_json())
    assert known == {key: value for key, value in json.loads(body).items() if key in known} | {"time": known["time"]}
    assert {name: target.replicas for name, target in old.pools.items()} == {"prefill": 2, "decode": 3}
    assert (old.num_prefill_workers, old.num_decode_workers) == (2, 3)
    assert new.other_pools == {"frontend": 4}


def test_a_decision_of_an_earlier_day_names_no_other_pool() -> None:
    body = json.loads(codec.encode(written(prefill=2, decode=3)))
    body.pop("other_pools")
    assert codec.decode_as(v1.ScalingDecision, json.dumps(body).encode()).other_pools == {}


def test_a_new_leader_goes_on_from_the_counts_of_all_pools() -> None:
    name, flow = from_wire.last_decision(written(prefill=2, decode=3, frontend=4), None)
    assert name == DeploymentId(D)
    assert flow.published == {PREFILL: 2, DECODE: 3, FRONTEND: 4}
