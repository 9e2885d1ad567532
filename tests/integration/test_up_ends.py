"""The first interrupt ends `wattscale up` within two seconds, whatever its parts do, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.contract.bus import until
from tests.running_processes import children, gone

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.long
HANGS_S = 30.0
"""A run that waited for its parts would take longer than this; the time that it took is printed with the figures."""


@asynccontextmanager
async def running(home: Path, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    (home / "scratch").mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", "up", *options),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(home / "scratch"), "XDG_STATE_HOME": str(home)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await until((home / "wattscale" / "last-up.json").exists, "the run", 60)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.mark.parametrize(
    ("options", "frozen", "number"),
    [
        (("--speed", "1e6"), False, signal.SIGINT),
        (("--speed", "20"), True, signal.SIGINT),
        (("--speed", "20"), True, signal.SIGTERM),
        (("--speed", "20", "--startup-s", "100000", "--ttft-ms", "200"), False, signal.SIGHUP),
    ],
    ids=["a load too fast", "a frozen server", "a frozen server, terminated", "workers that never start"],
)
async def test_the_first_interrupt_ends_a_run(
    options: tuple[str, ...],
    frozen: bool,
    number: signal.Signals,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    async with running(tmp_path, *options) as up:
        server = children(up.pid, "nats-server")[0]
        await asyncio.sleep(3)  # decisions are under way
        if frozen:
            os.kill(server, signal.SIGSTOP)
        began_s = time.monotonic()
        up.send_signal(number)
        out, err = await asyncio.wait_for(up.communicate(), HANGS_S)
        took_s = time.monotonic() - began_s
    record_property("measured", f"up: ended {took_s:.1f} s after its interrupt")
    assert up.returncode == 0
    assert "kWh" in out.decode()
    assert "Traceback" not in err.decode()
    await until(lambda: gone(server), "the server's end", 10)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not (tmp_path / "wattscale" / "last-up.json").exists()
