"""`wattscale top` on a real server: a new decision arrives, also in a real terminal with an observer's login."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus
from deploy.cli.inspect.top import EXTRA
from deploy.dashboard.feed import Feed
from deploy.nats.embedded import EmbeddedServer
from deploy.nats.roles import inbox_prefix
from deploy.top.live_source import LiveSource
from deploy.top.table_rows import DecisionQuestion
from deploy.top.top_app import TextScreen, TopApp
from tests.command_line import run, wattscale
from tests.contract.bus import bench, connected, leading, until
from tests.contract.roles.test_command_line_roles import SECRET, as_role, example
from tests.doubles.seen_site import CHAT, SITE, decision, put, record, site
from tests.shared_data import ROOT

SMALL = (80, 24)
STARTED_S = 120.0
"""Within which a process has started, on a machine that many share."""
COLOUR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")


@asynccontextmanager
async def following(bus: Bus) -> AsyncIterator[LiveSource]:
    feed = Feed(bus, update_s=0.05)
    running = asyncio.create_task(feed.run())
    try:
        yield LiveSource(feed)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def lines(pilot: Pilot[None]) -> list[str]:
    return [strip.text.rstrip() for strip in pilot.app.screen._compositor.render_strips()]


async def until_line(pilot: Pilot[None], part: str) -> str:
    """The first line of the screen that has this part."""

    async def found() -> str:
        await pilot.pause()
        return next((line for line in lines(pilot) if part in line), "")

    return await until(found, f"{part!r} on the screen")


async def test_a_new_decision_arrives_and_is_explained_as_explain_does() -> None:
    async with bench() as (server, bus), leading(bus, "planner-a"), following(bus) as source:
        await put(bus, *site())
        async with TopApp(source, tab="decisions").run_test(size=SMALL) as pilot:
            await until_line(pilot, "scaling #1: prefill=2 decode=6")
            assert "leader planner-a" in lines(pilot)[0]
            await put(bus, decision(2, 7), record(2))
            newest = await until_line(pilot, "scaling #2: prefill=2 decode=7")
            assert lines(pilot)[lines(pilot).index(newest) - 1].startswith("UTC v")
            await pilot.press("enter")
            await until(lambda: isinstance(pilot.app.screen, TextScreen), "the explanation")
            await until_line(pilot, "decision #2 of ")
            await pilot.press("end")
            await until_line(pilot, "budget 10000 W, charged 9000 W, caps in force 6400 W, drawn 6240 W")
            assert isinstance(pilot.app.screen, TextScreen)
            shown = pilot.app.screen.text
        printed = await wattscale("explain", CHAT, "2", "--nats-url", server.url)
        # Their first lines differ in the age of the record.
        assert printed.out.splitlines()[1:] == shown.splitlines()[3:]
        assert await source.explained(DecisionQuestion("watts", "node-0", 0)) != ""


async def test_what_the_bus_does_not_hold_or_does_not_answer_is_stated(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server, connected(server.url) as bus, following(bus) as source:
        await stream_admin.apply(bus)
        await put(bus, *site())
        gone = await source.explained(DecisionQuestion("replicas", CHAT, 77))
        assert gone.startswith(f"no record of decision #77 of {CHAT} on this bus; records are kept for two hours")
        newest = await source.explained(DecisionQuestion("replicas", "nobody", None))
        assert newest.startswith("no record of a decision of nobody on this bus")
        caps = await source.explained(DecisionQuestion("watts", "node-0", 0))
        assert "rebalance: 3200 W for 8 GPUs" in caps
        async with TopApp(source).run_test(size=SMALL) as pilot:
            await until_line(pilot, f"{SITE}: budget 10000 W")
            await server.stop()
            await until_line(pilot, "! the bus is away for ")
            assert await until_line(pilot, f"{SITE}: budget 10000 W")
            away = await source.explained(DecisionQuestion("watts", "node-0", 0))
            assert away.startswith("the bus does not answer: ")


@contextmanager
def terminal(columns: int, rows: int) -> Iterator[tuple[int, int]]:
    """(our end, its end) of a terminal of this size."""
    ours, its = pty.openpty()
    try:
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.set_blocking(ours, False)
        yield ours, its
    finally:
        os.close(ours)
        os.close(its)


class Screen:
    """What a process wrote to its terminal."""

    def __init__(self, ours: int) -> None:
        self.ours, self.written = ours, b""

    def has(self, part: bytes) -> bool:
        with contextlib.suppress(BlockingIOError):
            while got := os.read(self.ours, 65_536):
                self.written += got
        return part in self.written


async def started(its: int, *words: str, **variables: str) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WATTSCALE_NATS_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", "top", *words),
        cwd=ROOT, stdin=its, stdout=its, stderr=its, start_new_session=True,
        env={**environment, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **variables},
    )  # fmt: skip


async def test_an_observer_sees_a_decision_arrive_in_a_terminal_without_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTSCALE_NATS_PASSWORD", SECRET)
    async with (
        EmbeddedServer(settings=example("single.conf", tmp_path)) as server,
        as_role(server.url, "single.conf", "planner", inbox_prefix("planner"), tmp_path) as planner,
    ):
        await stream_admin.apply(planner)
        await put(planner, decision(1, 6), record(1))
        with terminal(*SMALL) as (ours, its):
            screen = Screen(ours)
            words = ("--tab", "decisions", "--nats-url", server.url, "--user", "observer")
            top = await started(its, *words, NO_COLOR="1", WATTSCALE_NATS_PASSWORD=SECRET)
            try:
                await until(lambda: screen.has(b"scaling #1: prefill=2 decode=6"), "the first decision", STARTED_S)
                await put(planner, decision(2, 7))
                await until(lambda: screen.has(b"scaling #2: prefill=2 decode=7"), "the new decision")
                os.write(ours, b"q")
                await until(lambda: screen.has(b"\x1b[?1049l"), "the terminal as it was")
                assert await asyncio.wait_for(top.wait(), STARTED_S) == 0
            finally:
                if top.returncode is None:
                    top.kill()
                    await top.wait()
            assert not COLOUR.search(screen.written)
            assert SECRET.encode() not in screen.written


async def test_a_terminal_that_cannot_move_its_cursor_is_refused() -> None:
    with terminal(*SMALL) as (ours, its):
        screen = Screen(ours)
        top = await started(its, TERM="dumb")
        assert await asyncio.wait_for(top.wait(), STARTED_S) == 2
        assert screen.has(b"wattscale: top needs a terminal that moves its cursor, and TERM is dumb; use `wattscale ")
        assert screen.written.count(b"\n") == 1


def test_without_a_terminal_or_without_textual_it_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = run("top")
    assert refused.code == 2
    assert refused.one_line().startswith("wattscale: top needs a terminal, and standard ")
    monkeypatch.setitem(sys.modules, "textual", None)
    assert (run("top").code, run("top").one_line()) == (2, f"wattscale: {EXTRA}\n")
