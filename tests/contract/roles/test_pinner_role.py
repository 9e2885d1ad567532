"""The connector that pins for a Dynamo planner, under its role: it steers its own deployment, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.connectors.virtual.etcd_gateway import EtcdAccess, EtcdGateway, put
from agent.connectors.virtual.pin_bridge import PinBridge
from agent.core.scaling.claims import Holder
from bus_schemas import v1
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.api import answer, ask
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.subjects import Subjects
from deploy.nats.embedded import EmbeddedServer
from deploy.nats.roles import SiteAccounts, accounts, inbox_prefix
from tests.contract.bus import scaling, until
from tests.contract.dynamo.etcd_process import EtcdProcess
from tests.contract.roles.test_roles import API, refused, user

NAME, OTHER, SECRET = "prod", "prod-other", "not-a-secret"
SITE = SiteAccounts(
    planners=(user("planner"),),
    connectors={"hands": (user("hands"), (NAME,))},
    pinners={"pins": (user("pins"), (NAME,))},
)
INBOXES = {
    "planner": inbox_prefix("planner"),
    "hands": inbox_prefix("connector", "hands"),
    "pins": inbox_prefix("pinner", "pins"),
}
ROOT = "wattscale.v1"


@asynccontextmanager
async def three_roles(folder: Path) -> AsyncIterator[dict[str, Bus]]:
    """A server with the roles, and a connection of each user."""
    password = folder / "password"
    password.write_text(SECRET)
    async with EmbeddedServer(settings=accounts(Subjects(), SITE)) as server, AsyncExitStack() as stack:
        made = {}
        for name, inbox in INBOXES.items():
            settings = BusSettings(
                servers=(server.url,),
                user=name,
                password_file=password,
                name=name,
                inbox_prefix=inbox,
                request_timeout_s=2.0,
            )
            made[name] = await connect(settings)
            stack.push_async_callback(made[name].close)
        await stream_admin.apply(made["planner"])
        yield made


async def test_its_rights_suffice_for_a_pin_and_its_completion_after_a_garbled_command(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        etcd = await stack.enter_async_context(EtcdProcess(tmp_path / "etcd"))
        gateway = await stack.enter_async_context(EtcdGateway(EtcdAccess((etcd.url,))))
        buses = await stack.enter_async_context(three_roles(tmp_path))
        planner, hands, pins = buses["planner"], buses["hands"], buses["pins"]
        now, pools = (
            datetime.now(UTC),
            {name: v1.PoolRecord(role=name, current=1, wanted=1, granted=1) for name in ROLES},
        )
        record = v1.PlanRecord(time=now, deployment=NAME, decision_id=-1, pools=pools)
        await publish(planner, planner.subjects.telemetry_plan(NAME), record, "plan-0")
        assert "seq" in answer(await ask(pins, pins.subjects.control_deployment(NAME), b"no command"))
        running = asyncio.create_task(PinBridge(gateway, pins, NAME, NAME, Holder("pins", "process 1")).run())
        stack.callback(running.cancel)
        below = f"v1/{NAME}/planner/"
        counts = [put(f"{below}num_prefill_workers", "1"), put(f"{below}num_decode_workers", "2")]
        assert await gateway.transact([], [*counts, put(f"{below}decision_id", "0")])

        async def pinned() -> v1.DeploymentControl | None:
            found = await last(planner, planner.subjects.control_deployment(NAME))
            return found.message if found and isinstance(found.message, v1.DeploymentControl) else None

        pin = await until(pinned, "the pin")
        assert pin is not None
        assert (pin.action, pin.replicas) == ("pin", {"prefill": 1, "decode": 2})
        # What our planner and its hands do with it.
        await publish(planner, planner.subjects.decision_scaling(NAME), scaling(NAME, 0), "decision-0")
        granted = {
            name: pool.model_copy(update={"granted": count})
            for (name, pool), count in zip(pools.items(), (1, 2), strict=True)
        }
        taken = record.model_copy(update={"pin_id": pin.command_id, "decision_id": 0, "pools": granted})
        await publish(planner, planner.subjects.telemetry_plan(NAME), taken, "plan-1")
        ack = v1.ScalingAck(
            time=now,
            deployment=NAME,
            decision_id=0,
            scaled_decision_id=0,
            incarnation="one",
            status=v1.AckStatus.APPLIED,
        )
        await publish(hands, hands.subjects.ack_scaling(NAME), ack, "ack-0")

        async def completed() -> bool:
            found, _ = await gateway.snapshot([f"{below}scaled_decision_id"])
            return {value.text for value in found.values()} == {"0"}

        await until(completed, "the completion")
        assert not running.done()
        assert not [text for text in pins.violations if "permission" in text.lower()]


ROLES = ("prefill", "decode")
FORBIDDEN = (
    f"{ROOT}.control.deployment.{OTHER}",
    f"{ROOT}.control.budget.local",
    f"{ROOT}.control.node.node-1",
    f"{ROOT}.decision.scaling.{NAME}",
    f"{ROOT}.ack.scaling.{NAME}",
    f"{ROOT}.lease.planner",
    f"{ROOT}.telemetry.plan.{NAME}",
    f"$JS.API.DIRECT.GET.WATTSCALE_DECISIONS.{ROOT}.decision.scaling.{OTHER}",
    "$JS.API.DIRECT.GET.WATTSCALE_DECISIONS",
)


async def test_it_steers_its_own_deployment_only(tmp_path: Path) -> None:
    async with three_roles(tmp_path) as buses:
        for subject in (*FORBIDDEN, *API):
            assert await refused(buses["pins"], subject), f"the pinner may use {subject}"


@pytest.mark.parametrize("subject", ["wattscale.stored.v1.control.>", f"wattscale.stored.v1.telemetry.plan.{OTHER}"])
async def test_it_listens_to_its_own_deployment_only(tmp_path: Path, subject: str) -> None:
    async with three_roles(tmp_path) as buses:
        bus = buses["pins"]
        await bus.nc.subscribe(subject)
        await bus.nc.flush()
        await until(lambda: bus.denied(subject), "the violation")
