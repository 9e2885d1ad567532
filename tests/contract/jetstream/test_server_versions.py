"""Other servers: those with atomic batches serve every test of the bus, an older one is refused in a line."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bus_schemas.errors import ServerTooOldError
from bus_schemas.jetstream.connect import OLDEST_SERVER, connect, unopened
from bus_schemas.jetstream.settings import BusSettings
from deploy.nats.embedded import EmbeddedServer
from tests.command_line import process
from tests.contract.bus import bench, until
from tests.shared_data import ROOT
from tests.tools import nats_servers

SERVED = [version for version in nats_servers.versions() if version not in nats_servers.TOO_OLD]
LINE = (
    f"nats-server {nats_servers.TOO_OLD[0]} is older than 2.12.1 and lacks atomic batches with ids: "
    "update it to 2.12.1 or newer"
)
TESTS = ("client", "consume", "decision_history", "lease", "orders_again", "poison", "provision", "publish", "read")
WITHIN_S = 1500


@pytest.fixture
def old_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every embedded server is too old. Skips with the reason where it cannot be had."""
    nats_servers.use_server(nats_servers.server_binary(nats_servers.TOO_OLD[0]), monkeypatch)


@pytest.mark.parametrize(
    "version", [nats_servers.TOO_OLD[0], pytest.param(nats_servers.TOO_OLD[1], marks=pytest.mark.nightly)]
)
async def test_a_connection_to_an_old_server_is_refused_in_a_line(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nats_servers.use_server(nats_servers.server_binary(version), monkeypatch)
    line = LINE.replace(nats_servers.TOO_OLD[0], version)
    async with EmbeddedServer() as server:
        with pytest.raises(ServerTooOldError, match=re.escape(f"NATS at {server.url}: {line}")):
            await connect(BusSettings(servers=(server.url,), name="test"))


@pytest.mark.usefixtures("old_server")
async def test_a_program_that_waits_for_its_bus_says_why_it_has_none() -> None:
    """Planners, agents and connectors: the planner's /readyz shows this trouble."""
    async with EmbeddedServer() as server:
        bus = unopened(BusSettings(servers=(server.url,), name="test"))
        waiting = asyncio.ensure_future(bus.ready())
        await until(lambda: bus.trouble, "the trouble", timeout_s=60.0)
        assert bus.trouble == f"NATS at {server.url}: {LINE}"
        assert not bus.connected
        waiting.cancel()
        await bus.close()


async def test_a_server_that_becomes_old_under_a_connection_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = nats_servers.server_binary(nats_servers.TOO_OLD[0])
    async with bench(tmp_path / "new") as (server, bus):
        await server.stop()
        nats_servers.use_server(old, monkeypatch)
        server._data_dir = tmp_path / "old"
        await server.start()
        await until(lambda: LINE in bus.trouble, "the refusal", timeout_s=90.0)
        assert not bus.connected
        monkeypatch.undo()
        await server.stop()
        server._data_dir = tmp_path / "new"
        await server.start()
        await until(lambda: bus.connected, "the connection to the new server", timeout_s=90.0)
        assert bus.trouble == ""


@pytest.mark.usefixtures("old_server")
@pytest.mark.parametrize("words", [("streams", "check"), ("streams", "apply"), ("verify", "--wait", "0")])
async def test_commands_name_the_old_server(words: tuple[str, ...]) -> None:
    async with EmbeddedServer() as server:
        done = await process(*words, "--nats-url", server.url, timeout_s=120)
        assert done.code == 3, done
        assert done.err == f"wattscale: NATS at {server.url}: {LINE}\n"
        if words[0] == "verify":
            assert re.search(r"fail +versions +.*is older than 2\.12\.1", done.out, re.IGNORECASE), done.out


def test_the_oldest_server_is_the_first_of_those_that_are_tried_and_the_support_page_lists_them() -> None:
    page = (ROOT / "deploy" / "SUPPORT.md").read_text(encoding="utf-8")
    assert f"on {', '.join(SERVED[:-1])} and {SERVED[-1]} " in page
    assert f"({' and '.join(nats_servers.TOO_OLD)})" in page
    assert tuple(int(part) for part in SERVED[0].split(".")) == OLDEST_SERVER
    assert nats_servers.versions() == [*nats_servers.TOO_OLD, *SERVED]


@pytest.mark.nightly
@pytest.mark.timeout(WITHIN_S + 60)
@pytest.mark.parametrize("version", SERVED)
def test_the_bus_is_tested_on_each_version(version: str) -> None:
    """In a process of its own, by the plugin."""
    binary = nats_servers.server_binary(version)
    files = [f"tests/contract/jetstream/test_{name}.py" for name in TESTS]
    pytest_words = (
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.tools.nats_servers",
        "-m",
        "not nightly",
    )
    done = subprocess.run(
        [sys.executable, *pytest_words, *files],
        cwd=ROOT,
        env={**os.environ, nats_servers.VARIABLE: str(binary), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 100, done.stdout[-2000:]
