"""Streams are made once, grow, and never shrink or go by themselves."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import StoreCompression, StreamConfig

from bus_schemas import codec, v1
from bus_schemas.errors import BusAwayError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.api import answer, ask
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages, last
from bus_schemas.streams import DECISIONS, PLANS, TELEMETRY, TELEMETRY_BYTES, stream_specs
from bus_schemas.subjects import Subjects
from deploy.nats.embedded import EmbeddedServer
from deploy.nats.roles import inbox_prefix
from deploy.nats.roles import planner as planner_role
from planner.adapters.jetstream_link import BusTerm
from planner.domain.config import SiteConfig
from planner.domain.ids import SiteId
from planner.domain.units import Milliwatts
from tests.contract.bus import bench, connected, until

ROOT = Path(__file__).resolve().parents[3]


async def test_applying_twice_changes_nothing() -> None:
    async with EmbeddedServer() as server, connected(server.url) as bus:
        made = await stream_admin.apply(bus)
        assert len(made) == 7
        assert {change.what for change in made} == {"create"}
        assert await stream_admin.apply(bus) == []
        assert await stream_admin.plan(bus) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_age": 3600.0}, "~ WATTSCALE_DECISIONS: max_age 3600 s -> 0 s"),
        ({"max_msgs_per_subject": 8}, "~ WATTSCALE_DECISIONS: max_msgs_per_subject 8 -> 1024"),
        ({"allow_atomic": False}, "~ WATTSCALE_DECISIONS: allow_atomic null -> true"),
        ({"republish": None}, "~ WATTSCALE_DECISIONS: republish null -> "),
    ],
)
async def test_what_is_smaller_is_grown(change: dict[str, object], said: str) -> None:
    async with bench() as (_, bus):
        await bus.js.update_stream(stream_admin.stream_config(stream_specs(bus.subjects)[0]), **change)
        planned = await stream_admin.plan(bus)
        assert [str(one)[: len(said)] for one in planned] == [said]
        assert await stream_admin.apply(bus) == planned
        assert await stream_admin.plan(bus) == []


async def test_what_is_larger_stays_and_is_reported() -> None:
    async with bench() as (_, bus):
        spec = next(one for one in stream_specs(bus.subjects) if one.name == TELEMETRY)
        await bus.js.update_stream(stream_admin.stream_config(spec), max_age=7200.0, description="ours")
        changes = await stream_admin.apply(bus)
        assert [bool(change.refused) for change in changes] == [False, True]
        (left,) = await stream_admin.plan(bus)
        assert str(left).startswith("! WATTSCALE_TELEMETRY: max_age 7200 s -> 3600 s (refused: ")
        info = await bus.js.stream_info(TELEMETRY)
        assert info.config.max_age == 7200


async def test_another_storage_and_dropped_subjects_are_refused() -> None:
    spec = next(one for one in stream_specs(Subjects()) if one.name == TELEMETRY)
    there = replace(spec, storage="file", subjects=(*spec.subjects, "extra.>"))
    refused = [change.refused for change in stream_admin.differences(spec, stream_admin.stream_config(there))]
    assert len(refused) == 2
    assert all(refused)


async def test_what_an_operator_added_outlives_an_update() -> None:
    async with bench() as (_, bus):
        config = stream_admin.stream_config(stream_specs(bus.subjects)[0])
        added = {"compression": StoreCompression.S2, "metadata": {"owner": "site"}, "max_msg_size": 1 << 20}
        await bus.js.update_stream(config, max_msgs_per_subject=8, **added)
        assert [change.refused for change in await stream_admin.apply(bus)] == [""]
        kept = (await bus.js.stream_info(DECISIONS)).config
        assert (kept.max_msgs_per_subject, kept.compression, kept.max_msg_size) == (1024, "s2", 1 << 20)
        assert kept.metadata is not None
        assert kept.metadata["owner"] == "site"


async def test_the_client_library_knows_every_field_of_a_stream_that_the_server_reports() -> None:
    """An update sends what was read: a field that the library does not know would be reset by it."""
    known = {field.name for field in fields(StreamConfig)}
    async with bench() as (_, bus):
        for spec in stream_admin.wanted(bus):
            reply = answer(await ask(bus, f"$JS.API.STREAM.INFO.{spec.name}"))
            assert set(reply["config"]) <= known


async def test_without_jetstream_it_says_so() -> None:
    async with EmbeddedServer(settings={"jetstream": False}) as server, connected(server.url) as bus:
        with pytest.raises(BusAwayError, match="no service answers"):
            await stream_admin.plan(bus)


async def cli(args: Sequence[str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy.cli.main", *args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_the_command_line() -> None:
    async with EmbeddedServer() as server:
        where = ["--nats-url", server.url]
        code, text = await cli(["streams", "check", *where])
        assert code == 1
        assert "+ WATTSCALE_DECISIONS: create" in text
        assert (await cli(["streams", "apply", *where]))[0] == 0
        assert await cli(["streams", "check", *where]) == (0, "streams: up to date\n")
        code, text = await cli(["streams", "plan", "--json", *where])
        assert (code, json.loads(text)) == (0, [])
        assert (await cli(["streams", "plan", "--replicas", "9", *where]))[0] == 2
    assert (await cli(["streams", "plan", *where]))[0] == 3


def test_a_deleted_stream_is_made_again_long_before_a_grant_of_watts_runs_out() -> None:
    lease_s = SiteConfig(SiteId("row-1"), Milliwatts(1)).lease_s
    assert lease_s / 3 >= stream_admin.KEEP_EVERY_S


def former(bus: Bus) -> list[StreamConfig]:
    """The streams as version 0.1.0 first made them: readings and plan records in one, and no limit on messages."""
    made = []
    for spec in stream_specs(bus.subjects):
        config = stream_admin.stream_config(replace(spec, max_msg_bytes=-1))
        if spec.name == TELEMETRY:
            config.subjects = [bus.subjects.all_telemetry()]
        if spec.name != PLANS:
            made.append(config)
    return made


def record(number: int) -> v1.PlanRecord:
    return v1.PlanRecord(time=datetime.now(UTC), deployment="prod-llama", site="row", decision_id=number)


async def test_an_older_layout_gets_a_stream_of_plan_records_that_holds_the_old_ones() -> None:
    async with EmbeddedServer() as server, connected(server.url) as bus:
        for config in former(bus):
            await bus.js.add_stream(config)
        subject = bus.subjects.telemetry_plan("prod-llama")
        for number in range(5):
            await bus.js.publish(subject, codec.encode(record(number)), headers={"Nats-Msg-Id": f"r{number}"})
        seen = v1.NodeTelemetry(time=datetime.now(UTC), node="node-1", gpus=())
        await publish(bus, bus.subjects.telemetry_node("node-1"), seen, "t")
        planned = await stream_admin.plan(bus)
        assert not [change for change in planned if change.refused], planned
        assert await stream_admin.apply(bus) == planned
        assert await stream_admin.plan(bus) == []
        await publish(bus, subject, record(5), "r5")

        async def all_there() -> bool:
            return len(await all_messages(bus, subject)) == 6

        await until(all_there, "the old plan records")
        term = BusTerm(bus, Leadership(bus, "one", 5.0), 1)
        since = datetime.now(UTC) - timedelta(minutes=1)
        assert [one.decision_id for one in await term.records(since)] == list(range(6))
        assert await last(bus, bus.subjects.telemetry_node("node-1")) is not None
        assert (await bus.js.stream_info(TELEMETRY)).config.max_msg_size == TELEMETRY_BYTES


async def test_a_role_that_may_not_make_the_new_stream_leaves_the_old_one_as_it_is(tmp_path: Path) -> None:
    """A server whose permissions are of the former layout."""
    word = tmp_path / "word"
    word.write_text("not-a-secret")
    may = planner_role(Subjects())
    # That version named each stream that it may ask for.
    every = "$JS.API.STREAM.INFO.*"
    old = [one for one in may.publish if PLANS not in one and one != every]
    assert len(old) < len(may.publish) - 1
    old += [every.replace("*", spec.name) for spec in stream_specs(Subjects()) if spec.name != PLANS]
    old.append(f"$JS.API.STREAM.DELETE.{TELEMETRY}")
    rights = {"publish": {"allow": old}, "subscribe": {"allow": list(may.subscribe)}}
    user = {"user": "planner", "password": "not-a-secret", "permissions": rights}
    async with EmbeddedServer(settings={"authorization": {"users": [user]}}) as server:
        login: dict[str, Any] = {"user": "planner", "password_file": word, "inbox_prefix": inbox_prefix("planner")}
        async with connected(server.url, request_timeout_s=1.0, **login) as bus:
            for config in former(bus):
                await bus.js.add_stream(config)
            await bus.js.delete_stream(TELEMETRY)
            changes = {change.stream: change for change in await stream_admin.apply(bus)}
            assert "permissions are of an earlier version" in changes[PLANS].refused
            # What a restart of the server took is made again, as that version had it.
            assert changes[TELEMETRY].what == "create"
            assert (await bus.js.stream_info(TELEMETRY)).config.subjects == [bus.subjects.all_telemetry()]
