"""`wattscale report` against a real bus: made, signed, checked, and checked again after messages are gone."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bus_schemas import v1
from bus_schemas.jetstream.api import ask
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages
from planner.domain.config import OperationMode
from tests.command_line import wattscale
from tests.contract.bus import WHEN, applied, bench, power, until
from tests.integration.planner.stage import NAME, config, running, staged

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
KEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


async def store(bus: Bus) -> None:
    """Two decisions of 300 and 250 W within 1,000 W for one node, their answers, and a deployment's record."""
    seen = {"interval_s": 10.0, "requests": 100.0}
    record = v1.PlanRecord(time=WHEN, deployment="chat", decision_id=0, service_class="interactive", observed=seen)
    await publish(bus, bus.subjects.telemetry_plan("chat"), record, "record")
    for number, watts in enumerate((300.0, 250.0)):
        fields = {"site": "row-1", "budget_watts": 1000.0}
        decision = power("n-1", number, watts=watts).model_copy(update=fields)
        await publish(bus, bus.subjects.decision_power("n-1"), decision, f"decision-{number}")
        await publish(bus, bus.subjects.ack_power("n-1"), applied(decision), f"ack-{number}")


async def test_a_report_is_made_and_agrees_with_the_bus_until_messages_are_gone(tmp_path: Path) -> None:
    seed, file = tmp_path / "seed", tmp_path / "report.json"
    seed.write_text(SEED)
    async with bench() as (server, bus):
        await store(bus)
        at = ("--nats-url", server.url)
        done = await wattscale("report", *at, "--since", "1h", "--out", str(file), "--sign", str(seed))
        assert (done.code, done.err) == (0, "")
        held = "The budget was held: 0 violations in 2 acknowledgements of 1 node; of row-1 nothing is known before 2"
        assert done.out.startswith(f"{file}: {held}")
        made: dict[str, Any] = json.loads(file.read_text())
        assert [one["service_class"] for one in made["classes"]] == ["interactive"]
        (site,) = made["sites"]
        assert (site["site"], site["most_enforced"], site["least_budget"]) == ("row-1", 300.0, 1000.0)

        done = await wattscale("report", *at, "--check", str(file), "--signer", KEY)
        assert done.code == 0, done
        assert f"ok    it is signed by {KEY}" in done.out
        assert "ok    sites: as the messages give them" in done.out
        assert "ok    classes: as the messages give them" in done.out
        raised = tmp_path / "raised.json"
        raised.write_text(json.dumps({**made, "sites": [{**site, "most_enforced": 200.0}]}))
        done = await wattscale("report", *at, "--check", str(raised))
        assert done.code == 1
        assert "FAIL  sites: its figures are not those that the messages give" in done.out

        done = await wattscale("report", *at, "--since", "1h")
        assert done.code == 0
        assert held in done.out

        # The streams deny deletion; a stream that is made anew holds nothing of before.
        await ask(bus, "$JS.API.STREAM.DELETE.WATTSCALE_ACKS")
        await wattscale("streams", "apply", *at)
        done = await wattscale("report", *at, "--check", str(file))
        assert done.code == 1
        assert "FAIL  WATTSCALE_ACKS: 2 of 2 messages are not there any more" in done.out
        assert "`wattscale archive FOLDER` keeps" in done.out


async def test_what_was_in_force_before_the_period_comes_from_the_bus(tmp_path: Path) -> None:
    async with bench() as (server, bus):
        await store(bus)
        stored_at = (await all_messages(bus, bus.subjects.all_of("ack", "power")))[-1].stored_at
        assert stored_at is not None
        begins = stored_at + timedelta(milliseconds=1)
        await until(lambda: datetime.now(UTC) > begins, "the period to begin")
        done = await wattscale("report", "--nats-url", server.url, "--since", begins.isoformat(), "--json")
        assert done.code == 0
        made = json.loads(done.out)
        assert [(site["site"], site["acknowledgements"]) for site in made["sites"]] == [("row-1", 0)]
        assert made["evidence"]["streams"] == []


async def test_bad_input_is_one_line(tmp_path: Path) -> None:
    not_a_report = tmp_path / "x.json"
    not_a_report.write_text("{}")
    for args, line in (
        (("--since", "yesterday"), "--since: must be like 24h"),
        (("--since", "1h", "--until", "2h"), "--since 1h: not before --until 2h"),
        (("--since", "999999d"), "--since 999999d: before the year 1"),
        (("--since", "0001-01-01T00:00+14:00"), "--since 0001-01-01T00:00+14:00: before the year 1"),
        (("--out", "report.pdf"), "--out report.pdf: the ending must be one of html, md, csv, json"),
        (("--sign", str(tmp_path / "none")), "cannot be read: No such file or directory"),
        (("--check", str(not_a_report)), "not a report in JSON"),
        (("--signer", "U"), "--signer: only with --check"),
        (("--check", "x.json", "--out", "y.md"), "--out: not with --check, which takes all of it from the report"),
        (("--check", "x.json", "--sign", "seed"), "--sign: not with --check"),
        (("--check", "x.json", "--json"), "--json: not with --check"),
        (("--check", "x.json", "--since", "1h"), "--since: not with --check"),
        (("--check", "x.json", "--price-per-kwh", "0"), "--price-per-kwh: not with --check"),
        (("--check", "x.json", "--what-if"), "--what-if: not with --check"),
    ):
        done = await wattscale("report", "--nats-url", "nats://127.0.0.1:1", *args)
        assert (done.code, done.out) == (2, "")
        assert line in done.one_line()


async def test_what_an_advisory_planner_would_have_done_comes_from_its_records(tmp_path: Path) -> None:
    acting = config(interval_s=0.5, scale=1.0)
    advice = replace(acting.deployments[NAME], mode=OperationMode.ADVISORY)
    async with staged(tmp_path, replace(acting, deployments={NAME: advice})) as stage, running(stage):
        stage.load_rps = 60.0
        wildcard = stage.bus.subjects.all_of("telemetry", "plan")

        async def grew() -> bool:
            found = [one.message for one in await all_messages(stage.bus, wildcard)]
            records = [one for one in found if isinstance(one, v1.PlanRecord)]
            return any(pool.granted > pool.current for one in records[:-2] for pool in one.pools.values())

        await until(grew, "advice to start workers", 40)
        at = ("--nats-url", stage.server.url, "--what-if", "--price-per-gpu-hour", "2")
        done = await wattscale("report", *at, "--json")
        (found,) = json.loads(done.out)["what_if"]
        assert found["deployment"] == NAME
        assert found["planned_gpu_hours"] > found["ran_gpu_hours"] > 0
        assert 0 < found["other_s"] <= found["covered_s"]
        assert found["ran_joules"] > 0
        assert found["saved_cost"] < 0
        assert found["assumed_one_gpu"] == ["decode", "prefill"]
        done = await wattscale("report", *at)
        assert "## What if: advice that was not carried out" in done.out
        assert f"- {NAME}: nothing is recorded from " in done.out
