"""Expressions are taken apart as Prometheus reads them."""

from __future__ import annotations

import pytest

from tests.integration.observability.expressions import sides


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("a > 0", ["a"]),
        ('(sum(a{x="or > 1"}) or vector(0)) < 1', ['sum(a{x="or > 1"})', "vector(0)"]),
        ("sum by (or_not) (a) >= sum by (site) (b)", ["sum by (or_not) (a)", "sum by (site) (b)"]),
        ("(a > 2 * (1 - b) * c and d > 1) or (e < 0.9 unless on (x) f)", ["a", "2 * (1 - b) * c", "d", "e", "f"]),
        ("a == 1 and on (i) sum(increase(b[10m])) == 0", ["a", "sum(increase(b[10m]))"]),
    ],
)
def test_each_operand_is_found_and_numbers_are_not(expression: str, found: list[str]) -> None:
    assert list(sides(expression)) == found
