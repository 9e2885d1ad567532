"""`wattscale tour` as a newcomer starts it: what it states of each step is what an outsider saw on the bus."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.up_process import WATTSCALE, Outsider, outsider
from tests.command_line import run
from tests.contract.bus import until
from tests.running_processes import gone

pytestmark = pytest.mark.long
BUDGET_WATTS, CUT_WATTS = 5880.0, 2940.0
NAMES = ["baseline", "spike", "long-context", "low-load", "budget-cut", "planner-killed", "agent-killed"]
DECISION = re.compile(r"- default-demo scaling #(\d+): prefill=(\d+) decode=(\d+).*\[(.*)\]")
CAPS = re.compile(r"- caps at most ([\d,]+) W, budget .*: (never above it|above it only for the [\d.]+ s)")
SHARE = re.compile(r"- share good: answers in time ([\d.]+) %, prompts in time ([\d.]+) %, of ([\d.]+) requests")
STARTED = re.compile(r"process (\d+): ([\w-]+)")


@asynccontextmanager
async def touring(home: Path, *options: str, **streams: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """`wattscale tour OPTIONS` with a scratch folder of its own."""
    (home / "s").mkdir()
    environment = {**os.environ, "TMPDIR": str(home / "s"), "XDG_STATE_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(WATTSCALE, "tour", *options, env=environment, **streams)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 60)


async def nothing_is_left(home: Path, text: str) -> None:
    pids = [int(pid) for pid, _ in STARTED.findall(text)]
    assert len(pids) == 4
    await until(lambda: all(gone(pid) for pid in pids), "the end of all processes", 20)
    assert list((home / "s").iterdir()) == []
    assert not (home / "wattscale" / "last-up.json").exists()


@pytest.mark.parametrize(
    "names", [pytest.param(NAMES, marks=pytest.mark.nightly), ["baseline", "budget-cut", "planner-killed"]]
)
async def test_every_step_states_what_was_on_the_bus(
    names: list[str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    began_s = time.monotonic()
    pipe = asyncio.subprocess.PIPE
    only = [word for name in names[1:] for word in ("--only", name)] if names != NAMES else []
    async with touring(tmp_path, "--yes", "--speed", "60", *only, stdout=pipe, stderr=pipe) as process:
        reading = asyncio.create_task(process.communicate())
        record = tmp_path / "wattscale" / "last-up.json"
        await until(lambda: record.exists() or reading.done(), "the bus of the tour", 90)
        assert not reading.done(), reading.result()
        async with outsider(json.loads(record.read_text())["nats_url"]) as seen:
            out, err = (part.decode() for part in await asyncio.wait_for(reading, 350))
    record_property("measured", f"tour --yes --speed 60, {len(names)} steps: {time.monotonic() - began_s:.0f} s")
    assert (process.returncode, err) == (0, ""), (out, err)
    steps = dict(re.findall(r"^== .*\((\S+)\)\n((?:(?!==).*\n)*)", out, re.MULTILINE))
    assert list(steps) == names
    assert "0 violations in" in out.splitlines()[-2]
    for name, body in steps.items():
        of_any_step(name, body, seen)
    of_the_cut(steps["budget-cut"], seen)
    of_the_planner(steps["planner-killed"], out, seen)
    if names == NAMES:
        counts = {name: [int(a) + int(b) for _, a, b, _ in DECISION.findall(body)] for name, body in steps.items()}
        assert max(counts["spike"]) > counts["baseline"][-1]
        assert min(counts["low-load"]) < max(counts["spike"])
        of_the_agent(steps["agent-killed"], out, seen)
    await nothing_is_left(tmp_path, out)


def of_any_step(name: str, body: str, seen: Outsider) -> None:
    """Decisions, caps and shares of a step."""
    assert "look at: " in body, name
    assert "command: " in body, name
    pools = {one["decision_id"]: one["pools"] for one in seen.of("decision", "scaling")}
    applied = {one["decision_id"] for one in seen.of("ack", "scaling") if one["status"] == "applied"}
    for number, prefill, decode, became in DECISION.findall(body):
        asked = pools[int(number)]
        assert (asked["prefill"]["replicas"], asked["decode"]["replicas"]) == (int(prefill), int(decode))
        assert became != "applied" or int(number) in applied
    (caps,) = CAPS.findall(body)
    assert caps[1] == "never above it" or name == "budget-cut", body
    most = float(caps[0].replace(",", ""))
    assert most <= min(BUDGET_WATTS, max(sums(seen))) + 0.5, body
    (share,) = SHARE.findall(body)
    assert float(share[2]) > 0
    assert all(0 <= float(part) <= 100 for part in share[:2])


def sums(seen: Outsider) -> list[float]:
    """The sum of all caps in force after each acknowledgement, once both nodes have answered.

    A limit that a busy machine could not read in time is the one before.
    """
    last: dict[str, dict[str, float]] = {}
    found = []
    for ack in seen.of("ack", "power"):
        known = last.setdefault(ack["node"], {})
        known.update({gpu["gpu"]: gpu["enforced_watts"] for gpu in ack["gpus"] if gpu["enforced_watts"] is not None})
        if len(last) == 2:
            found.append(sum(sum(limits.values()) for limits in last.values()))
    return found


def of_the_cut(body: str, seen: Outsider) -> None:
    orders = [(one["budget_watts"], one["release"]) for one in seen.of("control", "budget")]
    assert orders == [(CUT_WATTS, False), (CUT_WATTS, True)]
    printed = re.search(r"it printed: caps now ([\d,]+) W of 2,940 W", body)
    assert printed is not None, body
    assert float(printed[1].replace(",", "")) <= CUT_WATTS
    assert {CUT_WATTS, BUDGET_WATTS} <= {one["budget_watts"] for one in seen.of("telemetry", "plan")}
    assert "budget 2,940 W to 5,880 W" in body
    assert "s after the command was stored" in body


def of_the_planner(body: str, out: str, seen: Outsider) -> None:
    killed = re.search(
        r"process (\d+) \((\S+)\) got SIGKILL; [\d.]+ s later, its lease over, (\S+) took the lead", body
    )
    epochs = re.search(r"in epoch (\d+): what epoch (\d+) sends late is refused", body)
    assert killed is not None, body
    assert epochs is not None, body
    assert f"process {killed[1]}: {killed[2]}, dashboard on http://127.0.0.1:" in out
    # The take-over is the new epoch's first decision: on a busy machine both may have led before it, in turn.
    decisions = [number for number, (_, one) in enumerate(seen.bodies) if one.get("epoch") == int(epochs[1])]
    before, after = (
        [one["holder"] for subject, one in part if subject.endswith(".lease.planner")]
        for part in (seen.bodies[: decisions[0]], seen.bodies[decisions[0] :])
    )
    assert killed[2] in before
    assert before[-1] == killed[3]
    assert killed[2] not in after
    decided = [one["epoch"] for one in seen.of("decision", "power")]
    assert {int(one) for one in epochs.groups()} <= set(decided)
    assert decided == sorted(decided)


def of_the_agent(body: str, out: str, seen: Outsider) -> None:
    killed = re.search(r"process (\d+) \((agent-node-1)\) got SIGKILL; \d+ s later node-1 counted as silent", body)
    charged = re.search(r"its ([\d,]+) W stayed charged: ([\d,]+) W in all", body)
    assert killed is not None, body
    assert charged is not None, body
    assert f"process {killed[1]}: agent-node-1\n" in out
    assert 0 < float(charged[1].replace(",", "")) < float(charged[2].replace(",", "")) <= BUDGET_WATTS
    boots = [one["boot"] for one in seen.of("telemetry", "node") if one["node"] == "node-1"]
    assert len(dict.fromkeys(boots)) == 2


async def test_in_a_terminal_a_step_is_skipped_and_an_interrupt_ends_the_tour(tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    try:
        streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal, "start_new_session": True}
        async with touring(
            tmp_path, "--only", "spike", preexec_fn=lambda: own_terminal(terminal), **streams
        ) as process:
            text = await read_until(controller, "end the tour > ")
            assert "== 1 of 2: Baseline" in text
            os.write(controller, b"s\n")
            text += await read_until(controller, "end the tour > ")
            assert "== 2 of 2: Spike" in text
            os.write(controller, b"\x03")
            assert await asyncio.wait_for(process.wait(), 60) == 130
        await nothing_is_left(tmp_path, text.replace("\r", ""))
    finally:
        os.close(controller)
        os.close(terminal)


def own_terminal(terminal: int) -> None:
    """In the child: make this the terminal whose Ctrl-C interrupts it."""
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


async def read_until(controller: int, wanted: str) -> str:
    found = ""
    os.set_blocking(controller, False)
    async with asyncio.timeout(120):
        while wanted not in found:
            try:
                found += os.read(controller, 65536).decode()
            except BlockingIOError:
                await asyncio.sleep(0.05)
    return found


def test_it_refuses_in_one_line_what_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    done = run("tour")
    assert (done.code, done.out) == (2, "")
    assert done.one_line().strip().endswith("standard input is no terminal: add --yes")
    for words in (("--yes", "--speed", "61"), ("--only", "baseline"), ("--yes", "--only", "nothing")):
        assert run("tour", *words).code == 2
