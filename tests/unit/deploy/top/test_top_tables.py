"""The lines above the tables, and rows of what is not well."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bus_schemas import v1
from deploy.cli.inspect.top import TABS
from deploy.dashboard.document import Document
from deploy.dashboard.feed import Update, as_data
from deploy.top.shown import ShownParts
from deploy.top.table_rows import TableRow
from deploy.top.top_tables import TABLES, agents, answers, budgets, gpus, header, pools
from tests.doubles.seen_site import SITE, gpu, lease, power, record, report

NOW = datetime(2026, 1, 2, 12, 0, 30, tzinfo=UTC)
READ = {"connected": True, "since": None, "trouble": "", "read": True}


def shown(*messages: v1.Message, bus: dict[str, Any] = READ, now: datetime = NOW) -> ShownParts:
    document = Document()
    for message in messages:
        document.add(message, is_new=False)
    found = ShownParts()
    found.take(Update(1, "everything", as_data(document.changes(now, bus=bus))))
    return found


def texts(row: TableRow) -> list[str]:
    return [cell.text for cell in row.cells]


def test_the_command_offers_the_tables_that_there_are() -> None:
    assert [table.name for table in TABLES] == list(TABS)
    assert all(len(table.columns) > table.sort for table in TABLES)


def test_every_row_has_a_cell_for_each_column() -> None:
    whole = shown(lease(at=NOW), power("n", 1, NOW), report("n", at=NOW), record(1, NOW))
    whole.take(
        Update(2, "changes", '{"parts":{},"events":[{"t":0,"kind":"watts","who":"n","text":"t","id":1,"well":true}]}')
    )
    for table in TABLES:
        rows = list(table.rows(whole, NOW))
        assert rows, table.name
        assert {len(row.cells) for row in rows} == {len(table.columns)}


def test_an_empty_bus_shows_nothing_and_says_that_it_is_read() -> None:
    nothing = ShownParts()
    assert header(nothing, NOW, 24) == ["wattscale top  12:00:30 UTC", "reading the bus"]
    assert [list(table.rows(nothing, NOW)) for table in TABLES] == [[]] * len(TABLES)
    assert answers(nothing) == ""


def test_a_bus_that_is_away_says_since_when_what_is_shown_is_of_the_past() -> None:
    since = round((NOW - timedelta(minutes=3)).timestamp() * 1000)
    away = {"connected": False, "since": since, "trouble": "connection refused", "read": True}
    lines = header(shown(record(1, NOW), bus=away), NOW, 24)
    assert lines[1] == "! the bus is away for 3 min, and this is of before: connection refused"


def test_caps_above_a_budget_stand_first_among_sites() -> None:
    sites = [(f"row-{index}", 10_000.0 if index < 3 else 3000.0) for index in range(4)]
    messages = [power(site, 0, NOW, site=site, budget_watts=watts) for site, watts in sites]
    found = shown(lease(at=NOW), *messages, *(report(site, at=NOW) for site, _ in sites))
    lines = header(found, NOW, 24)
    assert lines[1] == "row-3: budget 3000 W, caps 3200 W, drawn 3120 W: NOT HELD"
    assert lines[3] == "and 2 more sites: 2"
    assert [texts(row)[1] for row in budgets(found, NOW) if row.alert] == ["NOT HELD"]


def test_a_low_terminal_shows_some_of_what_is_not_well_and_how_to_see_the_rest() -> None:
    nodes = [message for index in range(3) for message in (power(f"n{index}", 0, NOW), report(f"n{index}", at=NOW))]
    late = NOW + timedelta(seconds=60)
    found = shown(lease(at=late), *nodes, now=late)
    assert header(found, late, 16)[-3:] == ["! n0: silent for 60 s", "! n1: silent for 60 s", "! and 1 more: a"]
    assert header(found, late, 24)[-1] == "! n2: silent for 60 s"
    assert "    n2: silent for 60 s" in answers(found).splitlines()
    assert {texts(row)[-1] for row in agents(found, late) if row.alert} == {"! silent"}
    assert {texts(row)[4] for row in agents(found, late) if row.alert} == {"over"}


def test_a_lease_that_needs_no_renewal_because_its_caps_are_at_the_fallback_is_not_over() -> None:
    caps = (v1.GpuCap(gpu="GPU-n-0", cap_watts=200.0, fallback_watts=200.0),)
    late = NOW + timedelta(minutes=7)
    found = shown(power("n", 1, NOW, caps=caps), report("n", at=late), now=late)
    assert [texts(row)[4] for row in agents(found, late)] == ["fallback"]


def test_a_gpu_outside_the_budget_says_so_and_counts_in_no_sum() -> None:
    outside = power("n", 1, NOW, outside_gpus=("GPU-n-0",))
    found = shown(outside, report("n", gpu("n", 0, pool="", pod=""), gpu("n", 1), at=NOW))
    rows = list(gpus(found, NOW))
    assert [texts(row)[-1] for row in rows] == ["outside the budget", ""]
    assert "no worker has it" in rows[0].detail
    (agent,) = agents(found, NOW)
    assert texts(agent)[8:10] == ["390 W", "400 W"]


def test_what_is_unknown_is_a_dash() -> None:
    silent = gpu("n", 0, draw_watts=None, enforced_watts=None).model_copy(update={"index": None})
    found = shown(report("n", silent, at=NOW))
    (row,) = gpus(found, NOW)
    assert texts(row)[:4] == ["n", "GPU-n-0", "-", "-"]
    assert row.question is None
    (agent,) = agents(found, NOW)
    assert texts(agent)[4:6] == ["-", "-"]


def test_a_pool_without_a_reason_has_an_empty_one() -> None:
    pool = v1.PoolRecord(role="decode", current=1, wanted=1, granted=1)
    (row,) = pools(shown(record(1, NOW, pools={"decode": pool}, gpu_power={})), NOW)
    assert texts(row)[-1] == ""
    assert texts(row)[2:8] == ["1", "1", "1", "0", "0", "-"]


def test_standby_planners_stand_beside_the_leader() -> None:
    found = shown(lease(at=NOW))
    found.overview["standby"] = [{"name": "planner-b", "until": found.overview["lease_until"]}]
    assert [texts(row)[-1] for row in agents(found, NOW)] == ["leads", "stands by"]
    assert SITE not in dict(found.named("site"))


def test_pools_name_the_class_of_service_where_one_is_set() -> None:
    classed = record(1, NOW).model_copy(update={"service_class": "interactive"})
    assert {texts(row)[0] for row in pools(shown(classed), NOW)} == {"prod-chat (interactive)"}
    assert {texts(row)[0] for row in pools(shown(record(1, NOW)), NOW)} == {"prod-chat"}
    assert {row.question.who for row in pools(shown(classed), NOW) if row.question} == {"prod-chat"}
