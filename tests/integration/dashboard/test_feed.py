"""The feed on a real server: what a viewer gets first, live, after an absence, in an outage, and when it is slow."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bus_schemas import v1
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import Outgoing, Publisher
from bus_schemas.jetstream.watch import follow
from deploy.dashboard import feed as feeds
from deploy.dashboard.feed import Feed, Update
from deploy.dashboard.fleet_reader import FleetReader, turn_s
from deploy.nats.embedded import EmbeddedServer
from planner.runtime.shared_listener import SharedListener
from tests.contract.bus import bench, connected, leading, until
from tests.doubles.seen_site import CHAT, SITE, decision, gpu, power, put, record, report, scaled, site, subject_of

WAIT_S = 60.0


@asynccontextmanager
async def fed(bus: Bus, **options: Any) -> AsyncIterator[Feed]:
    feed = Feed(bus, update_s=0.05, **options)
    running = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Watcher:
    """A viewer as the page is: parts by key, the timeline, the last id."""

    def __init__(self, feed: Feed, last_id: str = "") -> None:
        self.feed = feed
        self.updates = feed.watch(last_id)
        self.parts: dict[str, Any] = {}
        self.texts: list[str] = []
        self.points: list[str] = []
        self.names: list[str] = []
        self.last_id = last_id

    def take(self, update: Update) -> None:
        data = json.loads(update.data)
        if update.name == "everything":
            self.parts, self.texts = {}, []
        self.parts |= data["parts"]
        self.texts += [event["text"] for event in data["events"]]
        self.points += data["points"]
        self.names.append(update.name)
        self.last_id = self.feed.event_id(update)

    async def until(self, key: str, holds: Any) -> Any:
        """The part's value once ``holds`` is true of it."""
        async with asyncio.timeout(WAIT_S):
            while key not in self.parts or not holds(self.parts[key]):
                self.take(await anext(self.updates))
        return self.parts[key]

    async def until_text(self, part: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while not any(part in text for text in self.texts):
                self.take(await anext(self.updates))


async def test_a_viewer_gets_all_that_the_streams_hold_and_then_what_is_new() -> None:
    async with bench() as (_, bus), leading(bus, "planner-a"), fed(bus) as feed:
        await put(bus, *site())
        watcher = Watcher(feed)
        await watcher.until("overview", lambda part: part["bus"]["read"] and part["leader"] == "planner-a")
        assert watcher.parts["answers"]["budget"]["lines"][0].startswith(f"{SITE}: yes; budget 10000 W")
        assert {"node/node-0", "draw/node-1", f"deployment/{CHAT}", f"site/{SITE}"} <= set(watcher.parts)
        assert any("scaling #1: prefill=2 decode=6" in text for text in watcher.texts)
        await put(bus, decision(2, 7), record(2))
        await watcher.until(f"deployment/{CHAT}", lambda part: part["decision"] == 2)
        await watcher.until_text("scaling #2: prefill=2 decode=7")
        assert CHAT in watcher.points
        # Changes alone: what is not new was sent once.
        assert watcher.names.count("everything") == 1


async def test_a_viewer_that_was_away_reads_on_from_its_last_event() -> None:
    async with bench() as (_, bus), fed(bus) as feed:
        await put(bus, *site())
        first = Watcher(feed)
        await first.until("draw/node-0", lambda draw: draw[1:2] == [390])
        await first.updates.aclose()
        await put(bus, report("node-0", *(gpu("node-0", i, draw_watts=300.0 + i) for i in range(8))))
        back = Watcher(feed, first.last_id)
        await back.until("draw/node-0", lambda draw: draw[1:4] == [300, 301, 302])
        assert "everything" not in back.names
        stranger = Watcher(feed, "another-7")
        await stranger.until("draw/node-0", lambda draw: draw[1:2] == [300])
        assert stranger.names[0] == "everything"


async def test_an_outage_of_the_bus_is_stated_and_what_came_meanwhile_is_shown_after_it(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server, connected(server.url) as bus, fed(bus) as feed:
        await stream_admin.apply(bus)
        await put(bus, *site())
        watcher = Watcher(feed)
        await watcher.until("overview", lambda part: part["bus"]["read"])
        await server.stop()
        gone = await watcher.until("overview", lambda part: not part["bus"]["connected"])
        assert gone["bus"]["since"] is not None
        assert f"deployment/{CHAT}" in watcher.parts
        await server.start()
        async with connected(server.url, "other") as other:
            await stream_admin.apply(other)
            await put(other, decision(2, 8))
        await watcher.until("overview", lambda part: part["bus"]["connected"] and part["bus"]["since"] is None)
        await watcher.until_text("scaling #2: prefill=2 decode=8")


async def test_without_a_viewer_the_bus_is_not_followed() -> None:
    async with bench() as (_, bus), fed(bus, unwatched_s=0.0) as feed:
        await put(bus, *site())
        assert not feed.document.picture.nodes
        watcher = Watcher(feed)
        await watcher.until("overview", lambda part: part["bus"]["read"])
        await watcher.updates.aclose()
        await until(lambda: not feed.document.picture.nodes, "the feed to forget what is not watched")
        again = Watcher(feed, watcher.last_id)
        await again.until("overview", lambda part: part["bus"]["read"])
        assert again.names[0] == "everything"


async def test_a_viewer_that_does_not_read_is_cut_off_and_others_are_not() -> None:
    async with bench() as (_, bus), fed(bus) as feed:
        await put(bus, *site())
        slow, quick = Watcher(feed), Watcher(feed)
        await slow.until("overview", lambda part: part["bus"]["read"])
        for number in range(1, feeds.BEHIND + 10):
            await put(bus, report("node-0", *(gpu("node-0", i, draw_watts=100.0 + number) for i in range(8))))
            await quick.until("draw/node-0", lambda draw, number=number: draw[1:2] == [100 + number])
        async with asyncio.timeout(WAIT_S):
            assert [update async for update in slow.updates]
        assert feed.viewers == 1


async def test_nodes_that_are_many_are_read_in_turn_and_new_ones_are_found() -> None:
    nodes = 60
    async with bench() as (_, bus):
        await put(bus, *(report(f"node-{index}") for index in range(nodes)))
        taken: list[str] = []
        reader = FleetReader(bus, lambda message: taken.append(message.node), 0.02)  # type: ignore[attr-defined]
        running = asyncio.create_task(reader.run())
        try:
            await until(lambda: _is(sorted(taken) == sorted(f"node-{index}" for index in range(nodes))), "each once")
            # A share at a time, and none a second time while it has no other report.
            size = math.ceil(nodes / round(turn_s(nodes) / 0.02))
            assert size < nodes
            shares = [(taken[at : at + size], sorted(taken)[at : at + size]) for at in range(0, nodes, size)]
            assert all(set(share) == set(wanted) for share, wanted in shares)
            await put(bus, report("node-7"), report("zone-new"))
            await until(lambda: _is({"node-7", "zone-new"} <= set(taken[nodes:])), "the new reports")
            assert len(taken) == nodes + 2
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_reports_of_a_stream_that_begins_again_are_taken_in(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server, connected(server.url) as bus:
        await stream_admin.apply(bus)
        await put(bus, report("node-0"))
        taken: list[float | None] = []
        reader = FleetReader(bus, lambda found: taken.append(found.gpus[0].draw_watts), 0.02)  # type: ignore[attr-defined]
        running = asyncio.create_task(reader.run())
        try:
            await until(lambda: _is(taken == [390.0]), "the first report")
            await server.stop()
            await server.start()
            async with connected(server.url, "other") as other:
                await stream_admin.apply(other)
                # The lost stream had one more message: the new one must not count as read.
                await put(other, report("node-1"), report("node-0", gpu("node-0", 0, draw_watts=300.0)))
            await until(lambda: _is(300.0 in taken), "the report after the loss")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _is(holds: object) -> bool:
    return bool(holds)


async def test_what_goes_to_browsers_is_encoded_once_for_all_of_them() -> None:
    async with bench() as (_, bus), fed(bus) as feed:
        await put(bus, *site())
        viewers = [feed.watch("") for _ in range(2)]
        first, second = [await anext(one) for one in viewers]
        # Both began with the same number, unless a change came in between.
        assert first.event is second.event or first.number != second.number
        assert first.event == f"id: {feed.event_id(first)}\nevent: everything\ndata: {first.data}\n\n".encode()
        seen: list[dict[int, bytes]] = [{}, {}]
        await put(bus, decision(2, 7), record(2))
        async with asyncio.timeout(WAIT_S):
            while not (common := seen[0].keys() & seen[1].keys()):
                for mine, one in zip(seen, viewers, strict=True):
                    update = await anext(one)
                    mine[update.number] = update.event
        assert all(seen[0][number] is seen[1][number] for number in common)
        for one in viewers:
            await one.aclose()


async def test_in_a_planner_reports_and_answers_come_from_what_it_takes_in_itself() -> None:
    async with bench() as (_, bus):
        await put(bus, *site(), applied("node-0", 0))
        listener = SharedListener(Unused())
        following = [asyncio.create_task(handed_on(bus, kind, listener)) for kind in (("telemetry", "node"), ("ack",))]
        try:
            async with fed(bus, share=listener.shared_with) as feed:
                watcher = Watcher(feed)
                await watcher.until("overview", lambda part: part["bus"]["read"])
                await put(bus, report("node-0", *(gpu("node-0", i, draw_watts=301.0) for i in range(8)), applied=3))
                await put(bus, report("node-new"), power("node-0", 7), applied("node-0", 7))
                await watcher.until("draw/node-0", lambda draw: draw[1:] == [301] * 8)
                await watcher.until("draw/node-new", lambda draw: draw[1:2] == [390])
                await watcher.until("lease/node-0", lambda lease: (lease["decision"], lease["applied"]) == (7, 7))
                # An answer that the streams held is not news a second time.
                await put(bus, scaled(2, 6, status=v1.AckStatus.FAILED, reason="quota of pods"))
                await watcher.until_text("quota of pods")
                assert sum("scaling #1 applied" in text for text in watcher.texts) == 1
                watcher.parts.clear()
            assert listener._others == ()
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)


async def test_in_a_planner_its_decisions_are_shown_once_each_whoever_leads() -> None:
    async with bench() as (_, bus), leading(bus) as leadership:
        await put(bus, *site())
        listener, publisher = SharedListener(Unused()), Publisher(bus, leadership)

        async def publish(*messages: v1.PowerDecision | v1.ScalingDecision, answered: bool = True) -> None:
            items = [Outgoing(subject_of(bus, one), one, f"{one.epoch}-{one.decision_id}") for one in messages]
            places = await publisher.publish_batch(items)
            listener.published(messages, places if answered else ())

        async with fed(bus, share=listener.shared_with) as feed:
            watcher = Watcher(feed)

            async def shown(number: int) -> None:
                await watcher.until(f"deployment/{CHAT}", lambda part: part["decision"] == number)
                await watcher.until_text(f"scaling #{number}:")

            await watcher.until("overview", lambda part: part["bus"]["read"])
            await put(bus, decision(2, 7), decision(3, 7))  # Another planner's: this one stands by.
            await shown(3)
            for number in range(4, 7):
                await publish(decision(number, 8))
                await shown(number)
            followed = [one.subject for one in bus.nc._subs.values()]
            assert not any("decision" in subject for subject in followed), "what it writes is not read back"
            await publish(decision(7, 8), answered=False)
            await shown(7)
            await publish(decision(8, 8))
            await put(bus, decision(9, 8), decision(10, 8))  # Another one leads again, which is seen in the stream,
            await shown(10)
            await put(bus, decision(11, 8), decision(12, 8))
            await publish(decision(13, 8).model_copy(update={"epoch": 2}))  # and then this one, in a new term.
            await shown(13)
        texts = [text for text in watcher.texts if "scaling #" in text and "decode=" in text and ": prefill" in text]
        numbers = [int(text.partition("#")[2].partition(":")[0]) for text in texts if " applied" not in text]
        assert [one for one in numbers if one > 1] == list(range(2, 14))


class Unused:
    """A planner that decides nothing."""

    def received(self, message: v1.Message, sequence: int) -> None:
        pass


async def handed_on(bus: Bus, kind: tuple[str, ...], listener: SharedListener) -> None:
    """As `BusLink.listen` does: all that the streams hold comes first."""
    async for stored in follow(bus, bus.subjects.all_of(*kind), 0):
        listener.received(stored.message, stored.sequence)


def applied(node: str, number: int) -> v1.PowerAck:
    return v1.PowerAck(
        time=datetime.now(UTC), node=node, decision_id=number, applied_decision_id=number, incarnation="i", epoch=1,
        status=v1.AckStatus.APPLIED, gpus=(),
    )  # fmt: skip
