"""The worst single message on every subject: what it stops and how that heals. The rows are of deploy/SECURITY.md."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.connectors.bus_claims import SecondConnectorError, claimed, digest
from agent.core.scaling.claims import Holder
from bus_schemas import codec, v1
from bus_schemas.errors import BusAwayError, NotPermittedError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.api import ask
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last_per_subject, last_raw
from bus_schemas.streams import DECISIONS
from bus_schemas.subjects import Subjects
from bus_schemas.v1 import Message
from planner.adapters.jetstream_link import BusLink, BusTerm
from planner.core.intake import initial_state
from planner.core.step import react
from planner.ports import LinkUnfitError, StoredHistory
from planner.runtime.inbox import Inbox
from tests.contract.bus import applied, power, scaling, until
from tests.contract.roles.test_roles import NAME, NODE, Guarded, guarded_bus
from tests.unit.planner.core.small_site import SITE as ROW
from tests.unit.planner.core.small_site import planner as small_config

PAGE = Path(__file__).resolve().parents[3] / "deploy" / "SECURITY.md"
SUBJECTS = Subjects()
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DEAD = SUBJECTS.deadletter("WATTSCALE_DECISIONS", "power-node-7_example")
SCALED = v1.ScalingAck(
    time=NOW, deployment=NAME, decision_id=0, scaled_decision_id=0, incarnation="one", status="applied"
)
BACK = v1.NodeControl(time=NOW, node=NODE, action="restore")
PAUSE = v1.DeploymentControl(time=NOW, deployment=NAME, action="pause")
BUDGET = v1.BudgetChange(time=NOW, site=ROW, budget_watts=9000.0)
REPORT = v1.NodeTelemetry(time=NOW, node=NODE, gpus=())
RECORD = v1.PlanRecord(time=NOW, deployment=NAME, decision_id=0)
HIDES_NOTHING: dict[str, tuple[str, str, Message]] = {
    "power_decision": ("planner", SUBJECTS.decision_power(NODE), power(NODE, 0)),
    "scaling_decision": ("planner", SUBJECTS.decision_scaling(NAME), scaling(NAME, 0)),
    "power_ack": ("agent", SUBJECTS.ack_power(NODE), applied(power(NODE, 0))),
    "scaling_ack": ("connector", SUBJECTS.ack_scaling(NAME), SCALED),
    "telemetry": ("agent", SUBJECTS.telemetry_node(NODE), REPORT),
    "plan": ("planner", SUBJECTS.telemetry_plan(NAME), RECORD),
    "budget": ("operator", SUBJECTS.control_budget(ROW), BUDGET),
    "deployment_command": ("operator", SUBJECTS.control_deployment(NAME), PAUSE),
    "node_command": ("operator", SUBJECTS.control_node(NODE), BACK),
}
"""By test: who writes, where, and the message before the byte."""
ELSEWHERE = {
    "claim",
    "target_claim",
    "target_taken",
    "lease",
    "led",
    "standby",
    "extreme_budget",
    "dead_letter",
    "deletion",
    "forgetful",
}
EXTREME = {"extreme_report", "extreme_power_ack", "extreme_scaling_ack", "extreme_pin"}
"""Their tests are in `test_extreme_messages.py`."""


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded_bus(tmp_path) as found:
        yield found


def test_every_row_of_the_page_is_a_test_and_every_kind_of_subject_is_a_row() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert {row.rstrip("| ").rpartition("|")[2].strip() for row in rows} == {*HIDES_NOTHING, *ELSEWHERE, *EXTREME}
    named = set(re.findall(r"`(\w+\.\w+)", "".join(row.split("|")[1] for row in rows)))
    kinds = {f"{kind}.{what}" for kind, whats in _whats().items() for what in whats}
    assert {name for name in named if not name.startswith("deadletter")} == kinds


def _whats() -> dict[str, tuple[str, ...]]:
    from bus_schemas.subjects import WHATS

    return dict(WHATS)


async def past(guarded: Guarded) -> StoredHistory:
    """What a planner that takes the lead now reads."""
    bus = await guarded.as_("planner")
    leadership = Leadership(bus, "next", 5.0)
    return await BusTerm(bus, leadership, await leadership.acquire()).past()


@pytest.mark.parametrize("row", HIDES_NOTHING)
async def test_a_byte_hides_nothing_that_was_there_before(guarded: Guarded, row: str) -> None:
    role, subject, message = HIDES_NOTHING[row]
    bus = await guarded.as_(role)
    await publish(bus, subject, message, "before")
    await bus.nc.request(subject, b"x", timeout=5)
    seen = await last_per_subject(await guarded.as_("planner"), subject)
    assert [one.message for one in seen] == [message]
    history = await past(guarded)
    kept = [*history.scaling, *history.power, *(one for one, _ in history.last_messages)]
    assert (message in kept) == (row != "plan"), "records are read apart"


async def test_a_byte_on_the_lease_stops_planners_for_one_term(guarded: Guarded) -> None:
    bus = await guarded.as_("planner")
    await bus.nc.request(bus.subjects.lease(), b"x", timeout=5)
    leadership = Leadership(bus, "next", 1.0)
    assert not await leadership.try_acquire()
    assert await leadership.acquire() > 0


async def test_a_byte_among_the_signs_of_planners_stops_nothing(guarded: Guarded) -> None:
    bus = await guarded.as_("planner")
    for subject in (bus.subjects.led(), bus.subjects.standby()):
        await bus.nc.request(subject, b"x", timeout=5)
    async with BusLink(bus, "next", 5.0).lead() as term:
        assert (await term.past()).doubt == ""


async def test_a_dead_letter_that_is_none_stops_nothing(guarded: Guarded) -> None:
    agent = await guarded.as_("agent")
    await agent.nc.request(DEAD, b"x", timeout=5)
    assert await last_per_subject(await guarded.as_("planner"), DEAD) == []
    assert (await past(guarded)).power == ()


@pytest.mark.parametrize("role", ["planner", "agent", "connector", "operator", "observer"])
async def test_no_request_deletes_what_is_stored(guarded: Guarded, role: str) -> None:
    subject, decision = SUBJECTS.decision_power(NODE), power(NODE, 0)
    await publish(await guarded.as_("planner"), subject, decision, "before")
    for request in ("STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE"):
        with pytest.raises((NotPermittedError, BusAwayError)):
            await ask(await guarded.as_(role), f"$JS.API.{request}.{DECISIONS}", b'{"seq": 1}')
    assert [one.message for one in await last_per_subject(await guarded.as_("planner"), subject)] == [decision]


OWN = Holder("local on here", "process 1")


@pytest.mark.parametrize("target", [False, True], ids=["claim", "target_claim"])
async def test_no_message_on_a_claim_stops_a_connector_that_runs_or_keeps_the_next_one_out(
    guarded: Guarded, target: bool
) -> None:
    bus = await guarded.as_("connector")
    subject = SUBJECTS.claim_target(digest("rack")) if target else SUBJECTS.claim_deployment(NAME)
    forged = v1.Lease(time=NOW, holder="nobody", ttl_s=1.0)
    for body in (b"x", codec.encode(forged)):
        await bus.nc.request(subject, body, timeout=5)
        async with claimed(bus, OWN, {NAME: {"decode": "rack"}}, ttl_s=1) as claims:
            keeping = asyncio.create_task(claims.keep())
            for again in (b"x", codec.encode(forged)):
                await bus.nc.request(subject, again, timeout=5)

                async def overwritten(written: bytes = again) -> bool:
                    found = await last_raw(bus, subject)
                    return found is not None and found.data != written

                await until(overwritten, "the claim to be written again")
                assert not keeping.done()
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


async def test_target_taken_another_connector_that_renews_a_target_s_claim_stops_its_holder(guarded: Guarded) -> None:
    bus = await guarded.as_("connector")
    subject = SUBJECTS.claim_target(digest("rack"))
    forged = codec.encode(v1.Lease(time=NOW, holder="other/decode nobody (x)", ttl_s=60.0))

    async def overwrite() -> None:
        while True:
            await bus.nc.request(subject, forged, timeout=5)
            await asyncio.sleep(0.1)

    async with claimed(bus, OWN, {NAME: {"decode": "rack"}}, ttl_s=1) as claims:
        overwriting = asyncio.create_task(overwrite())
        try:
            with pytest.raises(SecondConnectorError, match="nobody"):
                await asyncio.wait_for(claims.keep(), 60)
        finally:
            overwriting.cancel()
            await asyncio.gather(overwriting, return_exceptions=True)


async def test_over_a_stream_made_to_forget_no_planner_leads_until_it_is_mended(guarded: Guarded) -> None:
    bus = await guarded.as_("planner")
    config = (await bus.js.stream_info(DECISIONS)).config
    await bus.js.update_stream(config.evolve(max_age=3600.0))
    link = BusLink(bus, "next", 5.0)
    with pytest.raises(LinkUnfitError, match="forgets by"):
        async with link.lead():
            raise AssertionError("leads")
    await stream_admin.apply(bus)
    async with link.lead() as term:
        assert (await term.past()).doubt == ""


EXTREMES = [
    BUDGET.model_copy(update={"budget_watts": watts, "ramp_s": ramp_s, "effective_from": start, "effective_until": end})
    for watts in (0.0, 1e9)
    for ramp_s in (0.0, 1e300)
    for start in (None, datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC))
    for end in (None, datetime(1, 1, 3, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))
]


def test_no_planner_fails_on_the_largest_and_smallest_budgets() -> None:
    config = small_config(budget_mw=4_000_000)
    gpu = v1.GpuTelemetry(gpu="g", enforced_watts=200.0, default_watts=700.0, min_watts=200.0, max_watts=700.0)
    report = REPORT.model_copy(update={"gpus": (gpu,), "boot": "a", "clock_s": 1.0})
    for extreme in EXTREMES:
        inbox = Inbox(lambda: None, lambda: None, lambda: 1000.0, NOW.timestamp() - 1000.0, config.deployments)
        inbox.begin()
        inbox.received(report, 1)
        inbox.received(extreme, 2)
        state = initial_state(config, 1, 1000.0, [], [], doubted=False)
        for now_s in (1000.0, 1010.0):
            state, plan = react(state, inbox.take({}), config, config.clock(now_s))
            assert 0 <= plan.sites[ROW].budget_mw <= 1e12
