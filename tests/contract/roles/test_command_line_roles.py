"""The commands that inspect and steer, by every role, on the server configurations that ship.

What a role may do works; what it may not is one line and exit code 3.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.publisher import Publisher, publish
from bus_schemas.jetstream.settings import BusSettings
from deploy.cli import bus_connection
from deploy.nats.embedded import EmbeddedServer
from deploy.nats.examples import configurations
from deploy.nats.roles import inbox_prefix
from tests.command_line import process, wattscale
from tests.contract.bus import leading, outgoing, power, scaling, until
from tests.contract.roles.certificates import Authority
from tests.contract.roles.test_examples import local
from tests.empty_home import no_bus_known
from tests.free_ports import free_port
from tests.property.deploy.commands import commands

DENIED = re.compile(r"may (not|neither)")
SECRET = "s3cret-of-the-test"
ROLES = ("planner", "operator", "observer", "node-1", "llama")
LOOK = (
    ("status",),
    ("status", "--json"),
    ("decisions", "--last", "3"),
    ("explain", "prod-llama"),
    ("budget", "show"),
    ("verify", "--wait", "0"),
    ("report", "--since", "1h"),
    ("archive", "kept", "--once"),
)
STEER = (
    ("budget", "set", "5000", "--site", "row"),
    ("budget", "release", "--site", "row"),
    ("deployment", "pause", "prod-llama"),
    ("deployment", "resume", "prod-llama"),
    ("deployment", "pin", "prod-llama", "decode=1", "--force"),
    ("deployment", "release", "prod-llama"),
    ("node", "remove", "node-1", "--force"),
    ("node", "restore", "node-1"),
)
ONE_WORD = ("status", "decisions", "explain", "verify", "report", "archive")
CHECK = (("streams", "plan"), ("streams", "check"))
APPLY = (("streams", "apply"),)
ALL = (*LOOK, *STEER, *CHECK, *APPLY)
MAY = {
    "planner": (*LOOK, *CHECK, *APPLY),
    # Once the streams are up to date there is nothing to apply, for anybody.
    "operator": (*LOOK, *STEER, *CHECK, *APPLY),
    "observer": (*LOOK, *CHECK, *APPLY),
    "node-1": (),
    "llama": (),
}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the examples' /etc/nats/tls, with a certificate for each role beside the server's."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    for name in ("server", *ROLES):
        authority.issue(name)
    return folder


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No address and no login from the machine of the test."""
    no_bus_known(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)


def example(file: str, tls: Path) -> dict[str, Any]:
    """An example's settings for a server of the test, with one password for all."""
    text = json.dumps(local(configurations()[file], tls))
    found: dict[str, Any] = json.loads(re.sub(r'"\$[A-Z0-9_]+"', json.dumps(SECRET), text))
    return found


def login(file: str, role: str, tls: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options with which a role logs in to an example."""
    if file == "single.conf":
        monkeypatch.setenv("WATTSCALE_NATS_PASSWORD", SECRET)
        return ["--user", role]
    return [
        *("--tls-ca", str(tls / "ca.pem"), "--tls-cert", str(tls / f"{role}.pem")),
        "--tls-key",
        str(tls / f"{role}.key"),
    ]


@asynccontextmanager
async def as_role(url: str, file: str, role: str, inbox: str, tls: Path) -> AsyncIterator[Bus]:
    who: dict[str, object] = (
        {"user": role}
        if file == "single.conf"
        else {"tls_ca_file": tls / "ca.pem", "tls_cert_file": tls / f"{role}.pem", "tls_key_file": tls / f"{role}.key"}
    )
    bus = await connect(BusSettings(servers=(url,), inbox_prefix=inbox, **who))
    try:
        yield bus
    finally:
        await bus.close()


async def furnish(url: str, file: str, tls: Path) -> None:
    """A leader's decisions and record, and a node's telemetry."""
    now = datetime.now(UTC)
    async with as_role(url, file, "planner", inbox_prefix("planner"), tls) as planner:
        async with leading(planner) as leadership:
            batch = [outgoing(planner, power("node-1", 0)), outgoing(planner, scaling("prod-llama", 0))]
            await Publisher(planner, leadership).publish_batch(batch)
        record = v1.PlanRecord(time=now, deployment="prod-llama", site="row", decision_id=0, budget_watts=9000.0)
        await publish(planner, planner.subjects.telemetry_plan("prod-llama"), record, "r")
    async with as_role(url, file, "node-1", inbox_prefix("agent", "node-1"), tls) as agent:
        await publish(
            agent, agent.subjects.telemetry_node("node-1"), v1.NodeTelemetry(time=now, node="node-1", gpus=()), "t"
        )


@pytest.mark.long
@pytest.mark.parametrize("file", ["single.conf", "single-tls-certificates.conf"])
async def test_what_each_role_may_do_works_and_the_rest_is_one_line(
    file: str, tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = example(file, tls)
    async with EmbeddedServer(settings=settings) as server:
        at = ["--nats-url", server.url]
        for role in ("operator", "observer"):
            done = await wattscale("streams", "apply", *at, *login(file, role, tls, monkeypatch))
            assert done.code == 3, (role, done)
            assert "may not" in done.one_line()
        done = await wattscale("streams", "apply", *at, *login(file, "planner", tls, monkeypatch))
        assert (done.code, done.err) == (0, "")
        await furnish(server.url, file, tls)
        first = await wattscale(
            "budget", "set", "6000", "--site", "row", *at, *login(file, "operator", tls, monkeypatch)
        )
        assert (first.code, first.err) == (0, "")
        for role in ROLES:
            who = login(file, role, tls, monkeypatch)
            for words in ALL:
                done = await wattscale(*words, *at, *who)
                if words in MAY[role]:
                    assert (done.code in (0, 1), done.err) == (True, ""), (role, words, done)
                    continue
                assert done.code == 3, (role, words, done)
                assert DENIED.search(done.one_line()), (role, words, done)
                assert SECRET not in done.err


@pytest.mark.long
async def test_every_role_on_the_example_cluster(tls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [free_port() for _ in range(3)]
    routes = [f"nats://127.0.0.1:{port}" for port in ports]
    async with AsyncExitStack() as stack:
        servers = []
        for number, port in enumerate(ports):
            settings = example(f"cluster-{number}.conf", tls)
            settings["cluster"] |= {"listen": f"127.0.0.1:{port}", "routes": routes}
            servers.append(EmbeddedServer(name=f"nats-{number}", settings=settings, start_timeout_s=60))
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers))
        at = ["--nats-url", ",".join(server.url for server in servers)]
        planner = login("cluster", "planner", tls, monkeypatch)

        async def provisioned() -> bool:
            return (await wattscale("streams", "apply", "--replicas", "3", *at, *planner)).code == 0

        await until(provisioned, "the streams", 60)
        await furnish(servers[0].url, "cluster", tls)
        operator = login("cluster", "operator", tls, monkeypatch)
        assert (await wattscale("budget", "set", "6000", "--site", "row", *at, *operator)).code == 0
        for role in ROLES:
            who = login("cluster", role, tls, monkeypatch)
            # Streams of three copies are what this cluster has.
            for words in (one if one[0] != "streams" else (*one, "--replicas", "3") for one in ALL):
                allowed = words[: 2 if words[0] == "streams" else None] in MAY[role]
                # A cluster on a busy machine may be without a leader for longer than a command waits.
                for _ in range(5):
                    done = await wattscale(*words, *at, *who)
                    if done.code != 3 or not allowed or DENIED.search(done.one_line()):
                        break
                assert done.code in ((0, 1) if allowed else (3,)), (role, words, done)
                assert allowed or DENIED.search(done.one_line()), (role, words, done)


def test_the_table_has_every_command_that_reads_or_steers_a_bus() -> None:
    # Read what explain reads, some of them until ended, `top` only in a terminal; brings its own server and roles;
    # judges a process of somebody else; waits for a connector; measures an engine under caps.
    readers = {("replay",), ("dashboard",), ("top",)}
    others = readers | {("up",), ("connector", "check"), ("deployment", "restart"), ("profile",)}
    table = {words[:1] if words[0] in ONE_WORD else words[:2] for words in ALL}
    assert table | others == {one.words for one in commands() if one.takes("nats_url")}


async def test_a_context_of_the_nats_tool_is_used_as_it_is(
    tls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "XDG_CONFIG_HOME" / "nats" / "context"
    folder.mkdir(parents=True)
    async with EmbeddedServer(settings=example("single.conf", tls)) as server:
        host = server.url.removeprefix("nats://")
        common = {"description": "prod", "creds": "", "nkey": "", "cert": "", "key": "", "ca": "", "nsc": ""}
        for name, values in {
            "apart": {"url": server.url, "user": "planner", "password": SECRET},
            "inside": {"url": f"nats://planner:{SECRET}@{host}"},
            "wrong": {"url": server.url, "user": "planner", "password": "no-" + SECRET},
            "nsc": {"url": server.url, "nsc": "nsc://op/account/user"},
            "op": {"url": server.url, "user": "planner", "password": "op://vault/nats/password"},
        }.items():
            (folder / f"{name}.json").write_text(json.dumps(common | values))
        for name in ("apart", "inside"):
            done = await wattscale("streams", "apply", "--context", name)
            assert (done.code, done.err) == (0, ""), done
        assert "WATTSCALE_NATS_PASSWORD" not in os.environ
        done = await wattscale("status", "--context", "wrong")
        assert done.code == 3
        assert SECRET not in done.one_line()
        for name in ("nsc", "op"):
            done = await wattscale("status", "--context", name)
            assert (done.code, f"{name}://" in done.one_line()) == (2, True)
        done = await wattscale("status", "--context", "apar")
        assert "did you mean 'apart'" in done.one_line()
        assert done.code == 2
        monkeypatch.setenv("WATTSCALE_NATS_CONTEXT", "apart")
        assert (await wattscale("streams", "check")).err == ""


async def test_a_command_whose_answer_was_lost_counts_where_it_is_stored(tmp_path: Path) -> None:
    """A stream without acknowledgements stores a command and never answers."""
    async with EmbeddedServer(tmp_path / "data") as server:
        assert (await wattscale("streams", "apply", "--nats-url", server.url)).code == 0
        bus = await connect(BusSettings(servers=(server.url,)))
        info = await bus.js.stream_info("WATTSCALE_CONTROL")
        await bus.js.delete_stream("WATTSCALE_CONTROL")
        info.config.no_ack = True
        await bus.js.add_stream(info.config)
        done = await wattscale("budget", "set", "5000", "--site", "row", "--force", "--nats-url", server.url)
        assert (done.code, done.err) == (0, "")
        assert "5000 W" in done.out
        await bus.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command waits for streams that may come."""
    monkeypatch.setattr(bus_connection, "NO_SERVICE_WAIT_S", 0.0)


async def test_streams_that_come_in_a_moment_are_waited_for() -> None:
    async with EmbeddedServer() as server:
        status = asyncio.create_task(wattscale("status", "--nats-url", server.url))
        assert (await wattscale("streams", "apply", "--nats-url", server.url)).code == 0
        done = await status
        assert done.code == 1, done
        assert "holds no decision" in done.one_line()


@pytest.mark.parametrize("role", ["planner", "observer"])
async def test_a_bus_without_streams_says_so(
    role: str, tls: Path, monkeypatch: pytest.MonkeyPatch, at_once: None
) -> None:
    async with EmbeddedServer(settings=example("single.conf", tls)) as server:
        for words in LOOK:
            done = await wattscale(*words, "--nats-url", server.url, *login("single.conf", role, tls, monkeypatch))
            assert done.code == (1 if words[0] == "verify" else 3), done
            if words[0] == "verify":
                assert re.search(r"^  fail +streams +", done.out, re.MULTILINE)
                assert "wattscale streams apply" in done.out
                continue
            assert "no streams of Wattscale" in done.one_line()
            assert "streams apply" in done.err


async def test_a_server_without_jetstream_says_so(at_once: None) -> None:
    async with EmbeddedServer(settings={"jetstream": "disabled"}) as server:
        for words in (*LOOK, *STEER, ("streams", "apply"), ("up", "--duration", "1")):
            command = process if words[0] == "up" else wattscale
            done = await command(*words, "--nats-url", server.url)
            assert done.code == (1 if words[0] == "verify" else 3), done
            assert "no JetStream" in (done.out if words[0] == "verify" else done.one_line())


async def test_telemetry_that_a_restart_lost_is_named(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path / "data") as server:
        assert (await wattscale("streams", "apply", "--nats-url", server.url)).code == 0
        await server.stop()
        await server.start()
        for words in (("status",), ("explain", "prod-llama"), ("budget", "show")):
            done = await wattscale(*words, "--nats-url", server.url)
            assert done.code == 3, done
            assert "WATTSCALE_TELEMETRY and WATTSCALE_PLANS are gone" in done.one_line()
