"""Values in etcd are read as Dynamo reads them."""

from __future__ import annotations

import pytest

from agent.connectors.virtual.dynamo_keys import KeyGeneration, generation, number, prefixes


@pytest.mark.parametrize(
    ("text", "value"),
    [("+4", 4), ("05", 5), ("-1", -1), ("9223372036854775807", 2**63 - 1)]
    + [("0", 0), ("-000", 0), ("0" * 5000 + "7", 7), ("9" * 5000, None), ("-" + "1" * 5000, None)]
    + [(bad, None) for bad in (None, "", " 5", "5 ", "1e3", "abc", "9223372036854775808", "٣")],
)
def test_a_number_is_what_rust_takes_for_one(text: str | None, value: int | None) -> None:
    assert number(text) == value


def test_a_generation_is_read_by_exact_keys() -> None:
    first, old = prefixes("ns")
    values = {f"{first}decision_id": "4", f"{first}x/scaled_decision_id": "9", f"{old}num_decode_workers": "2"}
    assert generation(first, values) == KeyGeneration(4, None, (None, None))
    assert generation(first, values).ids == (4,)
    assert generation(old, values) == KeyGeneration(None, None, (None, 2))
