"""What a leader inherits: decisions that outlive every silence, and copies of a bus that are known as such."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus_schemas import v1
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.decision_history import forgetful, last_led, put_back
from bus_schemas.jetstream.publisher import publish
from bus_schemas.streams import ACKS, DECISIONS, forgets, stream_specs
from deploy.cli.main import main
from deploy.nats.embedded import EmbeddedServer
from planner.adapters import from_wire
from planner.adapters.jetstream_link import BusLink
from planner.core.power import site_ledger
from planner.domain.config import SiteConfig
from planner.domain.ids import SiteId
from planner.domain.units import Milliwatts
from planner.ports import LinkUnfitError, StoredHistory
from tests.contract.bus import applied, bench, connected, power, until
from tests.free_ports import free_port

NODE = "node-7"


async def change(bus: Bus, **settings: object) -> None:
    """The stream of decisions as an older version, or an operator, made it."""
    await bus.js.update_stream(stream_admin.stream_config(stream_specs(bus.subjects)[0]), **settings)


async def led(link: BusLink, *decisions: v1.PowerDecision) -> StoredHistory:
    """One term: what it inherits, after which it publishes ``decisions``."""
    async with asyncio.timeout(60), link.lead() as term:
        past = await term.past()
        if decisions:
            await term.publish([d.model_copy(update={"epoch": term.epoch}) for d in decisions])
    return past


async def answered(bus: Bus, decision: v1.PowerDecision) -> None:
    await publish(bus, bus.subjects.ack_power(decision.node), applied(decision), f"ack-{decision.decision_id}")


async def test_a_silent_nodes_last_decision_outlives_what_used_to_be_the_age() -> None:
    async with bench() as (_, bus):
        link = BusLink(bus, "me", 2.0)
        await led(link, power(NODE, 3, watts=500.0))
        await change(bus, max_age=1, duplicate_window=1)
        await until(lambda: _count(bus), "an age forgets whoever is silent for longer", timeout_s=60.0)
        await stream_admin.apply(bus)
        charged = v1.GpuCap(gpu="GPU-0", cap_watts=500.0, fallback_watts=200.0, charged_watts=500.0)
        await led(link, power(NODE, 4).model_copy(update={"caps": (charged,)}))
        await asyncio.sleep(2.5)
        (kept,) = (await led(link)).power
        assert kept.decision_id == 4
        # The next leader starts from it, and says again who does not answer.
        site = SiteConfig(SiteId("row-1"), budget_mw=Milliwatts(2_000_000))
        state = site_ledger.initial(site, 9, 0.0, [from_wire.stored_caps(kept)])
        (note,) = [note for note in site_ledger.summary(state, site, 0.0).notes if note.reason == "power_pending"]
        assert "1 nodes do not answer (node-7): 500 W stay charged" in note.sentence


async def _count(bus: Bus) -> bool:
    from bus_schemas.jetstream.reader import last_per_subject

    return not await last_per_subject(bus, bus.subjects.all_of("decision", "power"))


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"max_age": 7 * 86400}, "max_age 604800 s"), ({"max_bytes": 1 << 20}, "max_bytes 1048576")],
)
async def test_no_planner_leads_over_a_stream_that_forgets(
    settings: Mapping[str, object], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bench() as (server, bus):
        link = BusLink(bus, "me", 2.0)
        await led(link, power(NODE, 3))
        await change(bus, **settings)
        with pytest.raises(LinkUnfitError, match="forgets by") as caught:
            await led(link)
        assert word in str(caught.value)
        assert "wattscale streams apply" in str(caught.value)
        where = ["--nats-url", server.url]
        assert await asyncio.to_thread(main, ["streams", "check", *where]) == 1
        assert word in capsys.readouterr().out
        assert await asyncio.to_thread(main, ["streams", "apply", *where]) == 0
        assert await asyncio.to_thread(main, ["streams", "check", *where]) == 0
        assert await forgetful(bus) == ""
        assert len((await led(link)).power) == 1


def test_what_forgets() -> None:
    assert forgets({"max_age": 0, "max_bytes": -1, "max_msgs": -1, "storage": "file"}) == ""
    assert "max_msgs 9" in forgets({"name": "S", "max_msgs": 9})
    assert "restart" in forgets({"storage": "memory"})


async def test_a_bus_that_was_put_back_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    port = free_port()
    async with EmbeddedServer(store, port=port) as server:
        where = server.url
        async with connected(where) as bus:
            await stream_admin.apply(bus)
            await led(BusLink(bus, "me", 2.0), power(NODE, 3, watts=400.0))
    shutil.copytree(store, copy)
    async with AsyncExitStack() as process:
        async with EmbeddedServer(store, port=port):
            bus = await process.enter_async_context(connected(where))
            await stream_admin.apply(bus)
            link = BusLink(bus, "me", 2.0)
            late = power(NODE, 4, watts=500.0)
            assert (await led(link, late)).doubt == "", "a restart of the server is not a restore"
            await answered(bus, late.model_copy(update={"epoch": 1000}))
        # DECISIONS alone is put back, and the process that led lives on.
        await _put_back(copy, store, DECISIONS)
        async with EmbeddedServer(store, port=port):
            await bus.ready()
            await stream_admin.apply(bus)
            assert "went back from sequence" in (await led(link)).doubt
            (sentence,) = await put_back(bus)
            assert sentence.startswith("node-7 answered epoch 1000")
            assert await asyncio.to_thread(main, ["streams", "check", "--nats-url", where]) == 1
            assert "put back from an older copy: node-7 answered" in capsys.readouterr().out
    # The whole bus is put back, and no process remembers: its age shows it.
    shutil.rmtree(store)
    shutil.copytree(copy, store)
    async with EmbeddedServer(store, port=port), connected(where) as bus:
        await stream_admin.apply(bus)
        assert await put_back(bus) == []
        led_until = await last_led(bus)
        assert led_until is not None
        fresh = BusLink(bus, "another", 1.0, old_s=0.5)
        # A link takes three leases without a leader for old, and no less.
        await until(lambda: (datetime.now(UTC) - led_until).total_seconds() > 3.1, "the copy to be old")
        assert "no planner has led for" in (await led(fresh)).doubt
        assert "no planner has led for" in (await led(fresh)).doubt, "a term that wrote nothing changes nothing"
        assert await last_led(bus) == led_until
        assert "no planner has led for" in (await led(fresh, late.model_copy(update={"decision_id": 9}))).doubt
        assert (await led(fresh)).doubt == "", "once led over, the next fail-over is a usual one"


async def _put_back(copy: Path, store: Path, stream: str) -> None:
    """One stream's folder from the copy."""
    (old,) = [path for path in store.rglob(stream) if path.is_dir()]
    shutil.rmtree(old)
    shutil.copytree(copy / old.relative_to(store), old)
    assert stream != ACKS
