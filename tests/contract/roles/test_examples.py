"""The shipped server configurations: what the code makes, valid, and running as they stand but for their addresses."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.errors import BusError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import connect
from bus_schemas.jetstream.settings import BusSettings
from deploy.nats.binary import find_server
from deploy.nats.embedded import EmbeddedServer, ServerDownError
from deploy.nats.examples import configurations, drifted, files
from deploy.nats.roles import inbox_prefix
from tests.contract.bus import connected, until
from tests.contract.roles.certificates import Authority
from tests.free_ports import free_port


def test_the_files_are_what_the_code_makes() -> None:
    assert not drifted(), "run: python -m deploy.nats.examples"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the examples' /etc/nats/tls, with a planner's certificate beside the server's."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    authority.issue("server")
    authority.issue("planner")
    authority.issue("node-1")
    return folder


@pytest.mark.parametrize("path", sorted(files()), ids=lambda path: path.name)
def test_the_server_finds_each_valid(path: Path, tls: Path, tmp_path: Path) -> None:
    config = tmp_path / path.name
    config.write_text(path.read_text().replace("/etc/nats/tls", str(tls)))
    names = ("PLANNER", "OPERATOR", "OBSERVER", "NODE_1", "NODE_2", "LLAMA", "SYSTEM")
    environment = {**os.environ, **{f"WATTSCALE_{name}_PASSWORD": "x" for name in names}}
    done = subprocess.run(
        [find_server(), "-t", "-c", config], capture_output=True, text=True, env=environment, check=False, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr


def local(settings: dict[str, Any], tls: Path) -> dict[str, Any]:
    """An example on this machine: TLS files in the test's folder; addresses and store are left to the server."""
    text = json.dumps(settings).replace("/etc/nats/tls", str(tls))
    kept: dict[str, Any] = json.loads(text)
    return {key: kept[key] for key in kept if key not in ("listen", "http", "jetstream", "server_name")}


@pytest.mark.long
async def test_the_cluster_runs_with_tls_between_all(tls: Path) -> None:
    ports = [free_port() for _ in range(3)]
    routes = [f"nats://127.0.0.1:{port}" for port in ports]
    async with AsyncExitStack() as stack:
        servers = []
        for number, port in enumerate(ports):
            settings = local(configurations()[f"cluster-{number}.conf"], tls)
            settings["cluster"] |= {"listen": f"127.0.0.1:{port}", "routes": routes}
            servers.append(
                EmbeddedServer(name=f"nats-{number}", settings=settings, start_timeout_s=60, sync_always=True)
            )
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers))

        def who(name: str, inbox: str) -> BusSettings:
            return BusSettings(
                servers=tuple(server.url for server in servers),
                tls_ca_file=tls / "ca.pem",
                tls_cert_file=tls / f"{name}.pem",
                tls_key_file=tls / f"{name}.key",
                inbox_prefix=inbox,
                connect_timeout_s=60,
                replicas=3,
            )

        bus = await connect(who("planner", inbox_prefix("planner")))
        stack.push_async_callback(bus.close)

        async def provisioned() -> bool:
            try:
                await stream_admin.apply(bus)
                return await stream_admin.plan(bus) == []
            except BusError:
                return False

        await until(provisioned, "the streams", 60)
        info = await bus.js.stream_info("WATTSCALE_DECISIONS")
        assert info.cluster is not None
        assert len(info.cluster.replicas or []) == 2
        agent = await connect(who("node-1", inbox_prefix("agent", "node-1")))
        stack.push_async_callback(agent.close)
        assert agent.connected


async def test_the_embedded_server_comes_and_goes_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    async with EmbeddedServer(tmp_path / "data") as server:
        pid, url = server.pid, server.url
        assert Path(f"/proc/{pid}").exists()
        async with connected(url) as bus:
            await stream_admin.apply(bus)
            await server.kill()
            await server.start()
            await until(lambda: bus.connected, "reconnection")
            kept = [change.stream for change in await stream_admin.plan(bus)]
            assert kept == ["WATTSCALE_TELEMETRY", "WATTSCALE_PLANS"]
        assert server.url == url
        pid = server.pid
    assert not Path(f"/proc/{pid}").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_a_server_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    async with EmbeddedServer() as first:
        port = int(first.url.rsplit(":", 1)[1])
        with pytest.raises(ServerDownError, match="address already in use"):
            await EmbeddedServer(port=port).start()
    with pytest.raises(ServerDownError, match="jetstreem"):
        await EmbeddedServer(settings={"jetstreem": {}}).start()
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match="exists"):
        await EmbeddedServer(blocked).start()
