"""Ids of another system rise whatever was lost, and are ours where nothing was."""

from __future__ import annotations

from agent.core.scaling.external_ids import PassedOn, next_id, passed_on
from agent.core.scaling.scaling_types import ReplicaDecision


def at(number: int) -> ReplicaDecision:
    return ReplicaDecision(number, "i", {"decode": 1})


def test_without_a_loss_both_systems_show_the_same_number() -> None:
    assert next_id(at(0), (), -1) == 0
    assert next_id(at(5), (4, 4), 4) == 5


def test_after_any_loss_the_next_id_is_above_every_one_that_can_be_read() -> None:
    assert next_id(at(0), (41, 40), -1) == 42  # our ids begin again
    assert next_id(at(7), (), 90) == 91  # the other system lost everything
    assert next_id(at(7), (), -1) == 7  # and this process, too: the bus has ids up to 7
    assert next_id(at(7), (999,), 8) == 1000  # somebody completed an id that never was


def test_what_was_passed_on_is_read_back_and_anything_else_is_nothing() -> None:
    one = PassedOn(("i", 3), 9)
    assert passed_on(one.text()) == one
    for text in (
        None,
        "",
        "3",
        "[]",
        "{}",
        '{"incarnation": "i"}',
        '{"incarnation":"i","decision_id":"x","external_id":1}',
        '{"incarnation":"i","decision_id":Infinity,"external_id":1}',
        '{"incarnation":"i","decision_id":1,"external_id":NaN}',
    ):
        assert passed_on(text) is None
