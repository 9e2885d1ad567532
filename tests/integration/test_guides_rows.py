"""Every command in the rows of ``deploy/GUIDES.md``, run on a site of `wattscale up` with the power guide's watts."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.command_line import Done, process
from tests.free_ports import free_port
from tests.shared_data import ROOT
from tests.unit.deploy.test_guides_page import spans
from tests.unit.planner.adapters.test_profiles import write as write_profile

POD = "0a1b2c3d-1111-2222-3333-444455556666"
UP = "wattscale up --total-gpu-power-limit 1000"
ON_THE_SITE = {
    "wattscale status": ("", "demo"),
    "wattscale explain": ("{deployment}", "decision #"),
    "wattscale explain DEPLOYMENT": ("", "decision #"),
    "wattscale deployment pin": ("{deployment} decode=1 --force", ""),
    "wattscale planner check": ("-c {file}", "ok: "),
    "wattscale planner check --live": ("-c {file} --set bus.servers=[{nats}]", "ok: "),
    "wattscale config show": ("-c {file}", "interval_s"),
    "wattscale agent check": ("--driver simulated --node n --nats-url {nats} --kubernetes off", "ok "),
    "wattscale agent pod-of": ("--cgroup-file {cgroup}", POD),
    "wattscale verify": ("--nats-url {nats}", "streams"),
    "wattscale verify -c FILE": ("--nats-url {nats}", "profile"),
    "wattscale prove": ("--events 300 --seed 1 --jobs 1", "events"),
    "wattscale simulate": ("--duration 60 --nodes 1", "good"),
    "wattscale load --url URL --model MODEL --rate 2 --duration 60": ("--requests 2", "good"),
    "wattscale load --url URL --model MODEL --rate 20 --duration 60": ("--requests 2", "good"),
    "wattscale load --url URL --model MODEL --isl 4000 --osl 200 --rate 2 --duration 60": ("--requests 1", "good"),
}
"""What is added to a command so that it ends, and what it then prints. A word in capitals is filled in."""
JUDGING = ("wattscale status", "wattscale agent check", "wattscale verify", "wattscale verify -c FILE")
"""Exit code 1 is their verdict on the site."""
UNTIL_STOPPED = {
    "wattscale decisions --follow": ("", " power #"),
    "wattscale agent power": ("--driver simulated --node other --nats-url {nats} --port none", ""),
    "wattscale agent power --proc-root /host/proc": (
        "--driver simulated --node third --nats-url {nats} --port none",
        "",
    ),
}
"""Those that run on: what is added, and what they print before SIGTERM ends them well; an agent is in `status`."""
ELSEWHERE = {
    "wattscale up": "tests/acceptance/test_up.py",
    "wattscale profile": "tests/integration/profiler/test_profile_command.py",
    "wattscale request": "tests/integration/profiler/test_request_command.py",
    "wattscale engine": "tests/integration/test_engine_process.py",
    "wattscale planner run": "tests/integration/planner/test_guides_commands.py",
    "wattscale connector virtual": "tests/contract/dynamo/test_virtual_bridge.py",
    "wattscale connector local": "tests/integration/connectors/test_local_workers.py",
    "wattscale connector kubernetes": "tests/contract/kubernetes/test_connector_process.py",
    "wattscale connector autoscaler": "tests/contract/autoscaler/test_autoscaler_process.py",
    "wattscale deployment restart": "tests/contract/kubernetes/test_graph_restart.py",
}
"""The beginning of those that need more than this site, and where a test runs them."""


@asynccontextmanager
async def running(*words: str, shown: int = asyncio.subprocess.PIPE) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command as a process, killed at the end if it still runs. ``shown``: where its output goes."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", *words),
        cwd=ROOT,
        stdout=shown,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def printed(started: asyncio.subprocess.Process, text: str) -> str:
    """Wait for a line with this text."""
    assert started.stdout is not None
    lines = []
    try:
        async with asyncio.timeout(60):
            async for raw in started.stdout:
                lines.append(raw.decode())
                if text in lines[-1]:
                    return lines[-1]
    except TimeoutError:
        pass
    raise AssertionError(f"no line with {text!r}: {lines}")


@asynccontextmanager
async def filled_in(folder: Path) -> AsyncIterator[dict[str, str]]:
    """A site, an engine and files: the values of what is in capitals or braces."""
    write_profile(folder)
    file = folder / "planner.yaml"
    file.write_text(f"deployments: {{demo: {{sizing: load, profile: {folder}, metrics: {{urls: ['http://h:1']}}}}}}")
    cgroup = folder / "cgroup"
    cgroup.write_text(f"0::/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-containerd-{'a' * 64}.scope\n")
    port, nats = free_port(), free_port()
    up = (*shlex.split(UP)[1:], "--nodes", "1", "--gpus-per-node", "4", "--nats-port", str(nats), "--speed", "20")
    engine = ("engine", "--port", str(port), "--model", "m")
    async with running(*up, shown=asyncio.subprocess.DEVNULL), running(*engine) as served:
        await printed(served, str(port))
        url = f"nats://127.0.0.1:{nats}"
        async with asyncio.timeout(90):
            while (done := await process("status", "--json", "--nats-url", url)).code == 3 or "pools" not in done.out:
                await asyncio.sleep(0.2)
            # The run begins with the counts that its load needs: a pin makes the decision that the rows show.
            await process("deployment", "pin", "default-demo", "prefill=1", "--force", "--nats-url", url)
            while "decision #" not in (await process("explain", "default-demo", "--nats-url", url)).out:
                await asyncio.sleep(0.2)
        yield {
            "deployment": "default-demo",
            "DEPLOYMENT": "default-demo",
            "file": str(file),
            "FILE": str(file),
            "cgroup": str(cgroup),
            "nats": url,
            "URL": f"http://127.0.0.1:{port}",
            "MODEL": "m",
        }


def words_of(command: str, more: str, values: dict[str, str]) -> list[str]:
    return [values[word] if word.isupper() else word for word in shlex.split(f"{command} {more.format(**values)}")[1:]]


@pytest.mark.long
async def test_every_command_of_the_rows_does_what_the_row_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    async with filled_in(tmp_path) as values:
        for command, (more, text) in ON_THE_SITE.items():
            done: Done = await process(*words_of(command, more, values))
            allowed = (0, 1) if command in JUDGING else (0,)
            assert done.code in allowed, (command, done)
            assert text in done.out, (command, done)
        for command, (more, text) in UNTIL_STOPPED.items():
            async with running(*words_of(command, more, values)) as started:
                if text:
                    await printed(started, text)
                else:
                    node = words_of(command, more, values)[words_of(command, more, values).index("--node") + 1]
                    async with asyncio.timeout(90):
                        while f'"{node}"' not in (await process("status", "--json", "--nats-url", values["nats"])).out:
                            await asyncio.sleep(0.2)
                started.send_signal(signal.SIGTERM)
                await asyncio.wait_for(started.wait(), 60)
                assert started.returncode in (0, -signal.SIGTERM, 130, 143), command


def test_no_command_of_the_page_is_left_out() -> None:
    known = {*ON_THE_SITE, *UNTIL_STOPPED, UP}
    others = [command for command in spans("wattscale ") if command not in known]
    for command in others:
        (place,) = [place for start, place in ELSEWHERE.items() if command.startswith(start)]
        assert (ROOT / place).exists()
    assert known - {UP} <= set(spans("wattscale ")), "a command that the page no longer has"
