"""`wattscale up --real-workers`: processes under HTTP load are scaled within a budget, and leave nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.real_run import RealRun, write_trace
from tests.acceptance.up_process import UpProcess, outsider, up
from tests.contract.bus import until

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("up-real-workers"), pytest.mark.timeout(300)]

BUDGET_WATTS = 1_900
"""Four GPUs hold 800 W at least and would draw 2800 W."""
TARGETS = ("--itl-ms", "2000", "--ttft-ms", "10000")
"""So wide that a busy machine keeps them; the rate alone, more than one worker can serve, makes more of them."""
RUN = ("--real-workers", "--startup-s", "0.5", *TARGETS, "--budget-watts", str(BUDGET_WATTS))


@pytest.fixture
def run_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RealRun:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    write_trace(tmp_path / "trace.csv")
    return RealRun(scratch)


def options(files: RealRun) -> tuple[str, ...]:
    return (*RUN, "--trace", str(files.scratch.parent / "trace.csv"))


async def serving(run: UpProcess, files: RealRun, count: int) -> set[str]:
    """The workers once at least ``count`` of them take requests."""

    def enough() -> set[str]:
        assert run.process.returncode is None
        ready = files.ready() if list(files.scratch.glob("wattscale-workers-*")) else set()
        return ready if len(ready) >= count else set()

    return await until(enough, f"{count} workers that serve", 120)


async def test_real_workers_are_scaled_within_a_budget_and_a_killed_one_is_replaced(
    tmp_path: Path, run_files: RealRun, record_property: Callable[[str, object], None]
) -> None:
    async with up(tmp_path, *options(run_files)) as run:
        await run.listening()
        before = await serving(run, run_files, 2)
        async with outsider(run.url) as outside:
            [decision, *_] = await outside.until("decision.scaling")
            assert list(decision["pools"]) == ["aggregated"]
            folder, victim = run_files.folder, min(before)
            os.kill(run_files.workers()[victim]["pid"], signal.SIGKILL)
            await until(lambda: victim not in run_files.workers(), "the killed worker is given up")
            await serving(run, run_files, 2)
            done = len(outside.of("telemetry.plan"))
            await outside.until("telemetry.plan", count=done + 2)
        run.process.send_signal(signal.SIGINT)
        summary = await run.summary()
    record_property("measured", f"real workers: {summary['good_requests']} of {summary['requests']} good, {summary}")
    assert summary["good_requests"] > 0
    assert summary["max_sum_of_caps_watts"] <= BUDGET_WATTS
    assert summary["energy_joules"] > 0
    assert summary["gpu_hours"] > 0
    assert summary["ttft_ms"]["p50"] > 0
    assert summary["itl_ms"]["p50"] > 0
    assert not any("status" in reason for reason in summary["failed_requests"])
    assert await until(lambda: not run_files.left(folder), "nothing is left", 10)
    assert not (tmp_path / "wattscale" / "last-up.json").exists()


@pytest.mark.parametrize("frozen", [False, True], ids=["killed", "a frozen server, interrupted"])
async def test_a_run_that_cannot_end_in_order_leaves_no_worker(
    frozen: bool, tmp_path: Path, run_files: RealRun
) -> None:
    async with up(tmp_path, *options(run_files)) as run:
        await run.listening()
        await serving(run, run_files, 1)
        folder = run_files.folder
        assert run_files.left(folder)
        if frozen:
            [server] = run.children("nats-server")
            os.kill(server, signal.SIGSTOP)
        run.process.send_signal(signal.SIGINT if frozen else signal.SIGKILL)
        await run.process.communicate()
        # What the server of a killed run leaves is its own: here it is the workers and their folder.
        await until(lambda: not folder.exists() and run_files.left(folder) == [*run_files.scratch.iterdir()], "the end")
        if frozen:
            await until(lambda: not run_files.left(folder), "nothing is left", 10)
