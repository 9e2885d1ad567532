"""A reader that leaves, a full disk, a closed stream or terminal end a command quietly, with the right exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.bus import until

ROOT = Path(__file__).parent.parent.parent
SHOW = f"{sys.executable} -m deploy.cli.main config show"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.parametrize(
    ("line", "code", "err"),
    [
        (f"{SHOW} | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}", 0, ""),
        (f"{SHOW} >&-", 0, ""),
        (f"{SHOW} >/dev/full", 1, "wattscale: standard output cannot be written: No space left on device\n"),
        (f"{sys.executable} -m deploy.cli.main up --data-dir ''", 2, None),
    ],
)
def test_of_a_short_command(line: str, code: int, err: str | None) -> None:
    done = shell(line)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    assert err is None or done.stderr == err


@pytest.mark.parametrize("ending", ["a closed terminal", "a reader that leaves"])
async def test_up_ends_in_order(ending: str, tmp_path: Path) -> None:
    scratch, data = tmp_path / "scratch", tmp_path / "d\u00e4ta \u4e2d"
    scratch.mkdir()
    up = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", "up", "--nodes", "1", "--data-dir", str(data)),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch), "XDG_STATE_HOME": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert up.stdout is not None
        await until((tmp_path / "wattscale" / "last-up.json").exists, "the run", 60)
        if ending == "a closed terminal":
            up.send_signal(signal.SIGHUP)
            out, err = await asyncio.wait_for(up.communicate(), 60)
            assert "energy" in out.decode()
        else:
            up._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
            assert up.stderr is not None
            err = await asyncio.wait_for(up.stderr.read(), 60)
            await asyncio.wait_for(up.wait(), 60)
        assert up.returncode == 0
        assert "Traceback" not in err.decode()
        assert list(scratch.iterdir()) == []
    finally:
        if up.returncode is None:
            up.kill()
            await up.wait()
