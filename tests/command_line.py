"""The command line in this process, on a thread of its own, because each command runs an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.cli.main import main

_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Done:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    def one_line(self) -> str:
        """The only line on standard error."""
        assert len(self.err.splitlines()) == 1, self
        assert self.err.startswith("wattscale: "), self
        return self.err


def run(*words: str) -> Done:
    """Run one command to its end; an exception that would be a traceback passes through."""
    out, err = io.StringIO(), io.StringIO()
    with _one_at_a_time, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as end:  # argparse's own way out
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


async def wattscale(*words: str) -> Done:
    """`run` beside a running event loop."""
    return await asyncio.to_thread(run, *words)


async def process(*words: str, timeout_s: float = 60.0, env: Mapping[str, str] | None = None) -> Done:
    """Run one command as a process of its own, as a shell would. ``env`` None: that of this process."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", *words),
        cwd=Path(__file__).parent.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )
    try:
        out, err = await asyncio.wait_for(started.communicate(), timeout_s)
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
    return Done(started.returncode or 0, out.decode(), err.decode())
