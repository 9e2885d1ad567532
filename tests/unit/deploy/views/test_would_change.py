"""What would change a decision: the record's own counts before and after each limit."""

from __future__ import annotations

from bus_schemas import v1
from deploy.views.explain import explain
from deploy.views.would_change import would_change
from tests.doubles.seen_site import record


def pool(*counts: int, granted: int | None = None) -> v1.PoolRecord:
    codes = ("sla", "tolerance", "power_budget")
    chain = tuple(v1.Reason(code=code, text=f"{code} text") for code in codes[: len(counts)])
    last = counts[-1] if granted is None else granted
    return v1.PoolRecord(role="decode", current=1, wanted=counts[0], granted=last, chain=chain, values=counts)


def test_every_limit_that_moved_the_count_is_named_with_the_count_without_it() -> None:
    (line,) = would_change(record(1, pools={"decode": pool(9, 8, 6)}))
    assert (
        line
        == "decode: 6; it would be 9 without tolerance (tolerance text); 8 without power_budget (power_budget text)"
    )


def test_a_limit_that_moved_nothing_is_not_named() -> None:
    (line,) = would_change(record(1, pools={"decode": pool(9, 9, 6)}))
    assert "tolerance" not in line
    assert "9 without power_budget" in line


def test_without_a_limit_the_load_decides_and_its_forecast_is_stated() -> None:
    (line,) = would_change(record(1, pools={"decode": pool(4)}))
    assert line == (
        "decode: 4, which no limit moves; another load would (forecast 9 requests/s, band 8 to 12), or another target"
    )


def test_a_count_on_its_way_names_where_it_goes() -> None:
    (line,) = would_change(record(1, pools={"decode": pool(9, granted=5)}))
    assert line == "decode: 5 on its way to 9 (sla text)"


def test_a_pool_without_a_chain_is_left_out() -> None:
    bare = v1.PoolRecord(role="decode", current=1, wanted=1, granted=1)
    assert would_change(record(1, pools={"decode": bare})) == ()


def test_explain_prints_the_same_lines() -> None:
    shown = explain(record(1), None, None)
    assert all(f"    {line}" in shown.splitlines() for line in would_change(record(1)))
