"""The screen of `wattscale top`, line by line, driven by keys in a small terminal and a large one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from textual.pilot import Pilot

from bus_schemas import v1
from deploy.dashboard.document import Document
from deploy.dashboard.feed import Update, as_data
from deploy.dashboard.timeline import event_of
from deploy.top.table_rows import DecisionQuestion
from deploy.top.top_app import KEYS, KEYS_OF_TEXT, TextScreen, TopApp
from deploy.views.explain import explain
from tests.contract.bus import until
from tests.doubles.seen_site import CHAT, SITE, decision, gpu, lease, power, record, report, scaled

NOW = datetime(2026, 1, 2, 12, 0, 30, tzinfo=UTC)
BUS = {"connected": True, "since": None, "trouble": "", "read": True}
SMALL, LARGE = (80, 24), (200, 50)
SIZES = pytest.mark.parametrize("size", [SMALL, LARGE], ids=lambda size: f"{size[0]}x{size[1]}")


def messages(nodes: int = 2) -> list[v1.Message]:
    """A small site of one instant, with one GPU above its cap and a decision that failed."""
    found: list[v1.Message] = [lease("planner-a", NOW)]
    for index in range(nodes):
        name = f"node-{index}"
        draws = [500.0 if (index, number) == (1, 3) else 390.0 for number in range(8)]
        gpus = (gpu(name, number, draw_watts=watts) for number, watts in enumerate(draws))
        found += [power(name, 0, NOW - timedelta(seconds=3)), report(name, *gpus, at=NOW)]
    found += [decision(1, 6, NOW - timedelta(seconds=20)), scaled(1, 6, NOW - timedelta(seconds=19))]
    failed = scaled(2, 6, NOW, status=v1.AckStatus.FAILED, reason="quota of pods", scaled_decision_id=1)
    return [*found, decision(2, 7, NOW - timedelta(seconds=5)), failed, record(2, NOW)]


class SiteOfTest:
    """The document that the dashboard would make of these messages, and their explanations."""

    def __init__(self, found: list[v1.Message]) -> None:
        self.document = Document()
        self.asked: list[DecisionQuestion] = []
        for message in found:
            self.document.add(message, is_new=False)
        self.document.add_past([event for event in map(event_of, found) if event is not None])

    async def updates(self) -> AsyncIterator[Update]:
        yield Update(1, "everything", as_data(self.document.changes(NOW, bus=BUS)))

    async def explained(self, question: DecisionQuestion) -> str:
        self.asked.append(question)
        view = self.document.picture.deployments[CHAT]
        assert view.record is not None
        return explain(view.record, view.decision, view.ack, NOW)


def app_of(site: SiteOfTest, **options: str) -> TopApp:
    return TopApp(site, now=lambda: NOW, **options)


def screen(pilot: Pilot[None]) -> list[str]:
    """What stands on the terminal."""
    return [strip.text.rstrip() for strip in pilot.app.screen._compositor.render_strips()]


async def shown(pilot: Pilot[None], has: str, *keys: str) -> list[str]:
    """The screen after these keys, once it has this text."""
    await pilot.press(*keys)

    async def lines() -> list[str]:
        await pilot.pause()
        found = screen(pilot)
        return found if any(has in line for line in found) else []

    return await until(lines, f"{has!r} on the screen")


def body(lines: list[str]) -> list[list[str]]:
    """The cells of the table's lines, its head first: what stands between the tabs and the status."""
    begin = next(index for index, line in enumerate(lines) if "[" in line and "budget" in line) + 1
    end = next(index for index, line in enumerate(lines) if ", sorted by " in line)
    return [line.split("  ") for line in lines[begin:end] if line]


@SIZES
async def test_who_leads_the_watts_and_what_is_not_well_stand_above_every_table(size: tuple[int, int]) -> None:
    app = app_of(SiteOfTest(messages()))
    async with app.run_test(size=size) as pilot:
        for key, name in zip("12345", ("pools", "budget", "GPUs", "decisions", "agents"), strict=True):
            await shown(pilot, SITE, key)
            lines = await shown(pilot, f"[{key} {name}]")
            assert len(lines) == size[1]
            assert max(map(len, lines)) <= size[0]
            assert lines[0] == "wattscale top  12:00:30 UTC  leader planner-a"
            assert lines[1] == f"{SITE}: budget 10000 W, caps 6400 W, drawn 6350 W: held"
            assert lines[2] == f"! {CHAT}: itl_ms of 31 is above its target of 30"
            assert lines[-1].startswith("1-5 tables  / filter  s sort")


@SIZES
async def test_pools_show_why_and_enter_explains_them_in_the_words_of_explain(size: tuple[int, int]) -> None:
    site = SiteOfTest(messages())
    async with app_of(site).run_test(size=size) as pilot:
        lines = await shown(pilot, "  decode  ", "1")
        decode = next(line for line in lines if line.startswith(f"{CHAT}  ") and " decode " in line)
        if size == LARGE:
            assert decode.split()[2:12] == ["6", "9", "7", "1", "0", "400", "W", "0", "s", "10"]
            assert "321 / 500 ms  ! 31 / 30 ms  ! quota of pods" in decode
            assert decode.endswith("! quota of pods; power_budget: 10000 W are all that GPUs may draw")
        else:
            assert decode.split()[2:7] == ["6", "9", "7", "400", "W"]
            assert decode.endswith("! quota of pods; power_bu\u2026")
        text = await shown(pilot, KEYS_OF_TEXT, "down", "enter")
        view = site.document.picture.deployments[CHAT]
        assert view.record is not None
        assert isinstance(pilot.app.screen, TextScreen)
        assert pilot.app.screen.text == explain(view.record, view.decision, view.ack, NOW)
        assert site.asked == [DecisionQuestion("replicas", CHAT, None)]
        assert text[0] == f"{CHAT}, tick of 2026-01-02 12:00:30 UTC, 0 s ago"
        assert text[1] == "decision #2 of 12:00:25: prefill=2 decode=7"
        assert (await shown(pilot, KEYS, "escape"))[0].startswith("wattscale top")


@SIZES
async def test_decisions_are_newest_first_and_each_is_explained(size: tuple[int, int]) -> None:
    site = SiteOfTest(messages())
    async with app_of(site, tab="decisions").run_test(size=size) as pilot:
        lines = body(await shown(pilot, "6 of 6"))
        assert [cells[0] for cells in lines] == [
            *("UTC v", "12:00:30", "12:00:27", "12:00:27", "12:00:25", "12:00:11", "12:00:10"),
        ]
        assert lines[1][-1].startswith(f"! {CHAT} scaling #2 failed: prefill=2 decode=6; quota of")
        text = await shown(pilot, KEYS_OF_TEXT, "down", "down", "down", "enter")
        assert text[0].startswith(f"2026-01-02 12:00:25 UTC {CHAT} scaling #2: prefill=2 decode=7")
        assert site.asked == [DecisionQuestion("replicas", CHAT, 2)]
        await shown(pilot, KEYS, "escape")
        await shown(pilot, KEYS_OF_TEXT, "up", "enter")
        assert site.asked[1] in (DecisionQuestion("watts", "node-0", 0), DecisionQuestion("watts", "node-1", 0))


@SIZES
async def test_gpus_are_sorted_reversed_and_filtered_and_an_odd_one_says_why(size: tuple[int, int]) -> None:
    async with app_of(SiteOfTest(messages()), tab="GPUs").run_test(size=size) as pilot:
        lines = body(await shown(pilot, "16 of 16"))
        assert len(lines) == 17
        assert lines[0][0] == "node ^"
        lines = body(await shown(pilot, "draws, reversed", "s", "s", "r"))
        assert [lines[1][0], *lines[1][-1].split()[:2]] == ["node-1", "!", "draws"]
        screened = await shown(pilot, "8 of 16", "slash", *"NODE-0 390", "enter")
        assert [cells[0] for cells in body(screened)[1:]] == ["node-0"] * 8
        assert screened[-2] == "8 of 16, sorted by draws, reversed; only with NODE-0 390 (Esc: all)"
        assert len(body(await shown(pilot, "16 of 16", "escape"))) == 17
        text = await shown(pilot, KEYS_OF_TEXT, "home", "enter")
        assert text[0] == "node-1 GPU 3: GPU-node-1-3, H100, at most 700 W"
        assert "! draws 500 W, above its cap of 400 W" in text[:4]


@SIZES
async def test_a_filter_without_a_row_says_so(size: tuple[int, int]) -> None:
    async with app_of(SiteOfTest(messages()), wanted="nowhere").run_test(size=size) as pilot:
        lines = await shown(pilot, "0 of 2", "enter")
        assert "no row contains nowhere" in lines
        assert lines[-2] == "0 of 2, sorted by deployment; only with nowhere (Esc: all)"


@SIZES
async def test_budget_and_agents(size: tuple[int, int]) -> None:
    site = SiteOfTest(messages())
    later = v1.BudgetChange(
        time=NOW, site=SITE, budget_watts=8000.0, effective_from=NOW + timedelta(minutes=5), issued_by="grid"
    )
    site.document.add(later)
    async with app_of(site, tab="budget").run_test(size=size) as pilot:
        lines = [line for line in await shown(pilot, "2 of 2") if line.startswith(f"{SITE}  ")]
        assert lines[0].startswith(f"{SITE}   held          10000 W  6400 W  6350 W  budget 10000 W,")
        assert lines[1].split()[1:5] == ["begins", "later", "8000", "W"]
        text = await shown(pilot, KEYS_OF_TEXT, "down", "enter")
        assert text[0] == "8000 W from 2026-01-02 12:05:30 UTC, by grid: begins later"
        await shown(pilot, KEYS, "escape")
        agents = {line.split()[0]: line.split() for line in await shown(pilot, "3 of 3", "5") if line}
        assert agents["node-1"][-1] == "well"
        assert agents["planner-a"][-3:] == ["30", "s", "leads"]
        assert site.asked == []
        await shown(pilot, KEYS_OF_TEXT, "enter")
        assert site.asked == [DecisionQuestion("watts", "node-0", 0)]


async def test_the_cursor_stays_on_its_row_when_others_come_before_it() -> None:
    site = SiteOfTest(messages())
    async with app_of(site, tab="agents").run_test(size=SMALL) as pilot:
        await shown(pilot, "3 of 3")
        await shown(pilot, KEYS, "down")
        site.document.add(power("node-00", 7, NOW))
        site.document.add(report("node-00", at=NOW))
        app = pilot.app
        assert isinstance(app, TopApp)
        app.take(Update(2, "changes", as_data(site.document.changes(NOW, bus=BUS))))
        await shown(pilot, "4 of 4")
        await shown(pilot, KEYS_OF_TEXT, "enter")
        assert isinstance(app.screen, TextScreen)
        assert app.screen.text.startswith("agent of node-1: ")


async def test_the_questions_that_everybody_has_are_one_key_away() -> None:
    async with app_of(SiteOfTest(messages())).run_test(size=LARGE) as pilot:
        await shown(pilot, "2 of 2")
        lines = await shown(pilot, KEYS_OF_TEXT, "a")
        for question in ("Is the budget held?", "Why that many workers?", "Which GPU is odd?", "Targets missed"):
            assert question in lines
        assert "    node-1 GPU 3: draws 500 W, above its cap of 400 W" in lines


async def test_many_gpus_are_one_screen_long() -> None:
    async with app_of(SiteOfTest(messages(nodes=125)), tab="GPUs").run_test(size=SMALL) as pilot:
        lines = await shown(pilot, "1000 of 1000")
        lines = await shown(pilot, "node-124 ", "end")
        assert lines[-2] == "1000 of 1000, sorted by node"
        last = body(lines)[-1]
        assert last[0].startswith("node-124")
        assert len(lines) == 24


async def test_keys_leave_and_a_click_sorts_and_chooses() -> None:
    site = SiteOfTest(messages())
    app = app_of(site, tab="GPUs")
    async with app.run_test(size=SMALL) as pilot:
        await shown(pilot, "16 of 16")
        await pilot.click("RowsView", offset=(8, 0))
        await shown(pilot, "sorted by GPU")
        await pilot.click("RowsView", offset=(8, 0))
        await shown(pilot, "sorted by GPU, reversed")
        await pilot.click("RowsView", offset=(8, 2), times=2)
        assert (await shown(pilot, KEYS_OF_TEXT))[0].startswith("node-1 GPU 7: ")
        await shown(pilot, KEYS, "escape")
        await shown(pilot, "[2 budget]", "left")
        await shown(pilot, "[3 GPUs]", "right")
        await shown(pilot, "[4 decisions]", "tab")
        await shown(pilot, "[3 GPUs]", "shift+tab")
        await shown(pilot, "sorted by node", "S")
        await pilot.press("q")
    assert app.return_code == 0
