"""Engines that a profiler starts end with it, also where it does not come to watch over them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from planner.profiler.online.engine_process import EngineCommand, StartedEngines
from planner.profiler.online.openai_client import EngineError
from tests.contract.bus import until


def running(mark: str) -> bool:
    """Whether a process has ``mark`` among its arguments."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in file.read_bytes().split(b"\0"):
                return True
        except OSError:
            continue  # It has just ended.
    return False


async def test_an_engine_without_its_guard_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = f"engine-of-{tmp_path}"
    command = EngineCommand((sys.executable, "-c", "import time; time.sleep(100)", mark), "demo", {}, (), 40.0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="cannot start sh"):
        async with StartedEngines(command, tmp_path, 40.0).engine(1):
            pass
    await until(lambda: not running(mark), "the engine to end")
