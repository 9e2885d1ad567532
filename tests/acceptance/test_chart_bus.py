"""The chart's bus under the product: it loses a server during a cut, and its certificates are renewed."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.js.api import StreamInfo

from bus_schemas import v1
from bus_schemas.errors import BusError
from bus_schemas.jetstream.connect import Bus, BusUnreachableError, connect
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last_per_subject
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.streams import DECISIONS
from deploy.demo.options import UpOptions
from deploy.nats.binary import find_server
from deploy.nats.embedded import EmbeddedServer
from tests.acceptance.chart_bus import ChartSite, chart_servers, server_settings, site_on
from tests.contract.bus import until
from tests.contract.chaos.actors import all_current
from tests.contract.chaos.history import History, check, read_all
from tests.contract.roles.certificates import Authority

_log = logging.getLogger(__name__)
pytestmark = [pytest.mark.long, pytest.mark.xdist_group("up-real-workers"), pytest.mark.timeout(590)]
FULL_WATTS, CUT_WATTS = 8_000.0, 6_900.0
"""32 parked GPUs hold 6,400 W, and the load wants more than 8,000 W."""
LOSS_S = 110.0
"""Two servers on a busy machine may take several rounds to choose their leaders anew."""
OPTIONS = UpOptions(nodes=4, speed=20, budget_watts=FULL_WATTS)


async def order(site: ChartSite, watts: float) -> None:
    """A budget command, sent again under one id until the bus has stored it."""
    bus, identity = site.bus, str(uuid.uuid4())
    change = v1.BudgetChange(time=datetime.now(UTC), site="local", budget_watts=watts)
    site.ledger.budgets.append((time.monotonic(), watts))

    async def stored() -> bool:
        with suppress(BusError):
            await publish(bus, bus.subjects.control_budget("local"), change, identity)
            return True
        return False

    await until(stored, f"the order of {watts:.0f} W to be stored", 60, 0.1)


async def in_force(site: ChartSite, watts: float) -> None:
    """Until the limits of the hardware keep to a budget, and every decision is carried out."""
    await until(lambda: site.ledger.sums[-1][1] <= watts, f"caps within {watts:.0f} W", 60)


async def decided_within(site: ChartSite, watts: float) -> bool:
    """Whether the newest decision of all was made within this budget: no later one is made for more."""
    try:
        found = await last_per_subject(site.bus, site.bus.subjects.all_of("decision", "power"))
    except BusError:
        return False
    newest = found[-1].message if found else None
    return isinstance(newest, v1.PowerDecision) and newest.budget_watts == watts


async def beyond(site: ChartSite, watts: float) -> None:
    """Until a raised budget is used, so that the next cut is a cut of caps too."""
    await until(lambda: site.ledger.sums[-1][1] > watts, f"caps above {watts:.0f} W", 90)


async def described(bus: Bus) -> StreamInfo | None:
    """The stream of decisions as its leader describes it; None where nothing leads it."""
    try:
        return await bus.js.stream_info(DECISIONS)
    except Exception:  # noqa: BLE001  # no leader
        return None


async def whole(bus: Bus) -> bool:
    """Whether all three servers have all decisions."""
    info = await described(bus)
    peers = (info.cluster.replicas if info is not None and info.cluster else None) or []
    return len(peers) == 2 and all(peer.current and not peer.offline for peer in peers)


async def without(server: EmbeddedServer, bus: Bus, read: Callable[[], Awaitable[bool]], what: str) -> None:
    """Until ``read``, with ``server`` away. Two servers that elect no leader get the third back.

    Seen once in some hundred runs of a busy machine. Nothing can be decided then, and the agents hold the budget; it is
    for the two to elect a leader, and for ours to carry on once there is one.
    """
    try:
        await until(read, what, LOSS_S)
    except AssertionError:
        if server.pid or await described(bus) is not None:
            raise
        _log.warning("no leader among two servers; the third comes back")
        await server.start()
        await until(read, f"{what}, with the third server back", LOSS_S)


async def test_three_servers_lose_any_one_during_a_cut(tmp_path: Path) -> None:
    async with chart_servers(tmp_path, server_settings("keda")) as servers:
        assert len(servers) == 3
        urls = tuple(server.url for server in servers)
        settings = BusSettings(servers=urls, replicas=3, request_timeout_s=2.0, connect_timeout_s=20)
        async with site_on(OPTIONS, settings) as site:
            await in_force(site, FULL_WATTS)
            for server in servers:
                await beyond(site, CUT_WATTS)
                await until(lambda: whole(site.bus), "all decisions on three servers", 60, 0.2)
                cut = asyncio.create_task(order(site, CUT_WATTS))
                await server.kill()
                await cut
                # A raise that was on its way when a cut was ordered may land before the cut is in force.
                await without(server, site.bus, lambda: decided_within(site, CUT_WATTS), "a decision within the cut")
                await without(
                    server,
                    site.bus,
                    lambda: all_current(site.bus, list(site.nodes)),
                    "every decision to be carried out",
                )
                held = len(site.ledger.sums) - 1
                if not server.pid:
                    await server.start()
                after = [watts for _, watts in site.ledger.sums[held:]]
                assert max(after) <= CUT_WATTS, "above the budget also after a cut was in force"
                await order(site, FULL_WATTS)
            decided = len(await read_all(site.bus, site.bus.subjects.all_decisions()))
            assert decided > 3 * len(site.nodes)
            await check(site.bus, History())
            assert not [name for name, part in site.parts.items() if part.task.done()]


def write(folder: Path, authority: Authority) -> None:
    """The files of a server and a client, all of one authority, in place of those that are there."""
    for name in ("server", "client"):
        pair = authority.issue(name)
        (folder / f"{name}.crt").write_bytes(pair.cert.read_bytes())
        (folder / f"{name}.key").write_bytes(pair.key.read_bytes())
    (folder / "ca.crt").write_bytes(authority.own.cert.read_bytes())


async def led(bus: Bus) -> tuple[str, int]:
    """Who leads, and its term."""
    newest = (await read_all(bus, bus.subjects.all_of("decision", "power")))[-1].message
    assert isinstance(newest, v1.PowerDecision)
    return newest.incarnation, newest.epoch


async def back(name: str, bus: Bus) -> None:
    await until(lambda: bus.connected, f"{name} to come back with its renewed files", 60)


async def test_renewed_certificates_cost_no_lease_and_are_read_again(tmp_path: Path) -> None:
    files = tmp_path / "tls"
    files.mkdir()
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    write(files, old)
    secrets = "nats.tls.enabled=true,nats.tls.serverSecret=s,nats.tls.clientSecret=c"
    settings = server_settings("minimal", ("--set", secrets))
    assert settings["tls"]["cert_file"].endswith("tls.crt")
    # Clients present certificates too: stricter than the chart, so that theirs are renewed as well.
    settings["tls"] = {
        "cert_file": str(files / "server.crt"),
        "key_file": str(files / "server.key"),
        "ca_file": str(files / "ca.crt"),
        "verify": True,
    }
    async with chart_servers(tmp_path, settings) as (server,):
        client = BusSettings(
            servers=(server.url,),
            tls_ca_file=files / "ca.crt",
            tls_cert_file=files / "client.crt",
            tls_key_file=files / "client.key",
            request_timeout_s=2.0,
            connect_timeout_s=20,
        )
        async with site_on(OPTIONS, client) as site:
            await in_force(site, FULL_WATTS)
            await beyond(site, CUT_WATTS)
            before = await led(site.bus)
            write(files, new)
            subprocess.run([find_server(), "--signal", f"reload={server.pid}"], check=True, timeout=60)
            await until(lambda: "Reloaded server configuration" in server.log, "the server to read its files")

            fresh = await connect(client)
            await fresh.close()
            theirs = {
                "tls_ca_file": old.own.cert,
                "tls_cert_file": tmp_path / "old" / "client.pem",
                "tls_key_file": tmp_path / "old" / "client.key",
            }
            with pytest.raises(BusUnreachableError, match="certificate"):
                await connect(client.model_copy(update=theirs))

            await order(site, CUT_WATTS)
            await in_force(site, CUT_WATTS)
            assert await led(site.bus) == before
            buses = {"test": site.bus, **{name: part.bus for name, part in site.parts.items()}}
            assert {name: bus.nc.stats["reconnects"] for name, bus in buses.items()} == dict.fromkeys(buses, 0)

            await server.kill()
            await server.start()
            for name, bus in buses.items():
                await back(name, bus)
            await order(site, FULL_WATTS)
            await beyond(site, CUT_WATTS)
            assert not [name for name, part in site.parts.items() if part.task.done()]
