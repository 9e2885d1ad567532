"""Messages of the previous release are read today, and today's by its readers; both keep what they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.adapters.messages import decision_of
from bus_schemas import codec, v1
from bus_schemas.export import generate
from bus_schemas.subjects import Subjects
from planner.adapters import from_wire
from planner.domain.units import Milliwatts
from tests.contract.previous.previous_contract import (
    Body,
    as_read_before,
    knows,
    recorded,
    refuse_unreadable,
    schemas,
)

CORPUS = sorted((Path(__file__).parents[1] / "messages" / "corpus" / "v1").glob("*.json"))
TODAY: dict[str, Any] = json.loads((generate.HERE / "asyncapi.json").read_text())["components"]["schemas"]


def sent(cls: type[v1.Message]) -> list[Body]:
    """The recorded bodies of one type."""
    return [one["body"] for one in recorded() if one["body"]["type"] == cls.model_fields["type"].default]


def test_the_record_has_every_message_that_a_running_site_sends() -> None:
    types = {one["body"]["type"] for one in recorded()}
    assert types == {cls.model_fields["type"].default for cls in v1.MESSAGES if cls is not v1.DeadLetter}
    assert all(as_read_before(one["body"]) == one["body"] for one in recorded())


@pytest.mark.parametrize("number", range(len(recorded())))
def test_what_it_sent_is_read_and_means_the_same(number: int) -> None:
    one = recorded()[number]
    message = codec.decode(json.dumps(one["body"]).encode())
    codec.check_headers(message, one["headers"])
    assert Subjects().parse(one["subject"]) is not None
    again = json.loads(codec.encode(message))
    assert as_read_before(again) == one["body"]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_its_readers_take_every_message_of_today_and_lose_nothing_that_they_knew(path: Path) -> None:
    body = json.loads(codec.encode(codec.decode(path.read_bytes())))
    assert knows(body["type"])
    refuse_unreadable(body)
    before = as_read_before(body)
    again = json.loads(codec.encode(codec.decode(json.dumps(before).encode())))
    assert as_read_before(again) == before


def test_every_part_only_grew_by_fields_that_may_be_absent() -> None:
    for name, old in schemas().items():
        new = TODAY[name]
        assert set(old.get("properties", {})) <= set(new.get("properties", {})), name
        assert set(new.get("required", ())) == set(old.get("required", ())), name
        assert set(old.get("enum", ())) <= set(new.get("enum", ())), name


def test_a_new_planner_starts_from_the_caps_that_the_old_one_charged() -> None:
    for body in sent(v1.PowerDecision):
        message = codec.decode_as(v1.PowerDecision, json.dumps(body).encode())
        stored, order = from_wire.stored_caps(message), decision_of(message)
        assert stored.charged_mw == {cap["gpu"]: round(cap["charged_watts"] * 1000) for cap in body["caps"]}
        assert {target.gpu: target.setpoint.cap_mw for target in order.caps} == {
            cap["gpu"]: Milliwatts(round(cap["cap_watts"] * 1000)) for cap in body["caps"]
        }
        # What it could not state is unknown, not zero: no highest limit, no GPU outside the budget, none released.
        assert (stored.highest_mw, stored.outside, order.released) == ({}, frozenset(), ())


def test_a_new_planner_knows_how_far_the_old_one_s_scaling_came() -> None:
    (*_, decision), (*_, ack) = sent(v1.ScalingDecision), sent(v1.ScalingAck)
    _, flow = from_wire.last_decision(
        codec.decode_as(v1.ScalingDecision, json.dumps(decision).encode()),
        codec.decode_as(v1.ScalingAck, json.dumps(ack).encode()),
    )
    assert flow.published == {pool: target["replicas"] for pool, target in decision["pools"].items()}
    assert flow.scaled_decision_id == ack["scaled_decision_id"]
    assert flow.drained_decision_id is None, "a connector without phases never says that nothing drains any more"
    assert flow.starts.unstated, "what may still run by earlier decisions is not known, rather than nothing"
