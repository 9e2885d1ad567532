"""Two connectors for one deployment, or one target for two deployments: refused by name, under the shipped roles."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import yaml
from nats.aio.msg import Msg

from agent.connectors.bus_claims import BusClaim, SecondConnectorError, claimed
from agent.core.scaling.claims import Holder
from bus_schemas import v1
from bus_schemas.errors import BusAwayError, NotPermittedError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.api import ask
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.consumers import Durable, keep
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages, last
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.subjects import Subjects
from deploy.nats.embedded import EmbeddedServer
from deploy.nats.roles import SiteAccounts, accounts, inbox_prefix
from tests.contract.bus import bench, scaling, until
from tests.free_ports import free_port

NAME, OTHER, SECRET = "prod-llama", "prod-other", "not-a-secret"
CONNECTORS = {"a": (NAME,), "b": (NAME,), "c": (OTHER,)}


def user(name: str) -> dict[str, str]:
    return {"user": name, "password": SECRET}


class RoledSite:
    """A server with the shipped roles: two connectors of one deployment, and one of another."""

    def __init__(self, server: EmbeddedServer, folder: Path, stack: AsyncExitStack) -> None:
        self.server, self.folder, self._stack = server, folder, stack
        (folder / "password").write_text(SECRET)

    def bus_settings(self, name: str) -> dict[str, object]:
        prefix = inbox_prefix("planner") if name == "planner" else inbox_prefix("connector", name)
        return {
            "servers": [self.server.url],
            "user": name,
            "password_file": str(self.folder / "password"),
            "inbox_prefix": prefix,
        }

    async def as_(self, name: str) -> Bus:
        bus = await connect(BusSettings.model_validate({**self.bus_settings(name), "request_timeout_s": 2.0}))
        self._stack.push_async_callback(bus.close)
        return bus

    @asynccontextmanager
    async def process(self, kind: str, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A connector of one kind as the user ``name``, killed at the end where it still runs."""
        settings: dict[str, object] = {
            "deployment": NAME,
            "name": f"{kind} of {name}",
            "nats": self.bus_settings(name),
            "http": {"port": "none"},
        }
        if kind == "local":
            command = [sys.executable, "-c", "import time; time.sleep(600)", "{port}"]
            settings |= {
                "state_folder": str(self.folder / name),
                "first_port": free_port(),
                "pools": {"decode": {"command": command, "gpus_per_replica": 0}},
            }
        else:
            settings["etcd"] = {"endpoints": [f"http://127.0.0.1:{free_port()}"]}  # away: that comes after the claim
        file = self.folder / f"{kind}-{name}.yaml"
        file.write_text(yaml.safe_dump(settings))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli.main", "connector", kind, "--settings", str(file)),
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ},
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@asynccontextmanager
async def roled(folder: Path) -> AsyncIterator[RoledSite]:
    site = SiteAccounts(
        planners=(user("planner"),), connectors={name: (user(name), of) for name, of in CONNECTORS.items()}
    )
    async with EmbeddedServer(settings=accounts(Subjects(), site)) as server, AsyncExitStack() as stack:
        found = RoledSite(server, folder, stack)
        await stream_admin.apply(await found.as_("planner"))
        yield found


async def holder(bus: Bus) -> str:
    """Who holds the deployment now; empty: nobody."""
    found = await last(bus, bus.subjects.claim_deployment(NAME))
    if found is None or not isinstance(found.message, v1.Lease) or found.message.released:
        return ""
    return found.message.holder


@pytest.mark.long
async def test_a_second_connector_of_another_kind_is_refused_by_name_and_follows_a_killed_one(tmp_path: Path) -> None:
    async with roled(tmp_path) as site:
        planner = await site.as_("planner")

        async def held_by(name: str) -> bool:
            return (await holder(planner)).startswith(f"{name} (process ")

        async def acknowledged_by(name: str) -> bool:
            stored = await all_messages(planner, planner.subjects.ack_scaling(NAME))
            return any(isinstance(one.message, v1.ScalingAck) and one.message.actuator == name for one in stored)

        keeper = asyncio.create_task(keep(planner, lambda: [Durable.scaling(planner, NAME)], 0.5))
        try:
            await publish(planner, planner.subjects.decision_scaling(NAME), scaling(NAME, 0), "decision-0")
            async with site.process("local", "a") as first:
                await until(lambda: held_by("local of a"), "the first connector to claim", 120)
                await until(lambda: acknowledged_by("local of a"), "the first connector's acknowledgement", 120)
                async with site.process("virtual", "b") as second:
                    _, log = await asyncio.wait_for(second.communicate(), 120)
                assert second.returncode == 2, log
                sentence = log.decode().splitlines()[-1]
                assert f"deployment {NAME} is scaled by connector local of a (process {first.pid}" in sentence
                assert "leave the deployment out of virtual of b" in sentence
                assert first.returncode is None
                first.send_signal(signal.SIGKILL)
                await first.wait()
            async with site.process("virtual", "b"):
                await until(lambda: held_by("virtual of b"), "the next connector to follow the killed one", 120)
                await publish(planner, planner.subjects.decision_scaling(NAME), scaling(NAME, 1), "decision-1")
                await until(lambda: acknowledged_by("virtual of b"), "the next connector's acknowledgement", 120)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)


async def test_one_target_for_two_deployments_is_refused_by_name(tmp_path: Path) -> None:
    async with roled(tmp_path) as site:
        first, other = await site.as_("a"), await site.as_("c")
        own = Holder("kubernetes on here", "process 1")
        async with claimed(first, own, {NAME: {"decode": "deployments.apps/x in prod"}}) as claims:
            keeping = asyncio.create_task(claims.keep())
            with pytest.raises(SecondConnectorError) as caught:
                async with claimed(
                    other, Holder("local on there", "process 2"), {OTHER: {"all": "deployments.apps/x in prod"}}
                ):
                    raise AssertionError("claimed")
            assert str(caught.value) == (
                "target deployments.apps/x in prod is claimed by pool decode of prod-llama and by pool all of "
                "prod-other: give it to one of them (kubernetes on here (process 1) scales it now)"
            )
            assert not keeping.done()
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        # What was released is free at once, for the deployment that was refused too.
        async with claimed(
            other, Holder("local on there", "process 2"), {OTHER: {"all": "deployments.apps/x in prod"}}
        ):
            pass


async def test_a_connector_may_claim_its_own_deployments_only(tmp_path: Path) -> None:
    async with roled(tmp_path) as site:
        bus = await site.as_("c")
        with pytest.raises((NotPermittedError, BusAwayError)):
            await ask(bus, bus.subjects.claim_deployment(NAME), b"{}")
        with pytest.raises((NotPermittedError, BusAwayError)):
            await last(bus, bus.subjects.claim_deployment(NAME))


async def test_a_connector_whose_claim_was_taken_meanwhile_ends_by_name(tmp_path: Path) -> None:
    async with roled(tmp_path) as site:
        first, second = await site.as_("a"), await site.as_("b")
        async with claimed(first, Holder("asleep", "process 1"), {NAME: {}}, 1) as sleeping:
            # Not renewed: as in a process that was stopped for longer than its term.
            async with claimed(second, Holder("awake", "process 2"), {NAME: {}}) as awake:
                renewing = asyncio.create_task(awake.keep())
                with pytest.raises(SecondConnectorError, match=r"scaled by connector awake \(process 2\).*asleep"):
                    await asyncio.wait_for(sleeping.keep(), 60)
                assert not renewing.done()
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)
            assert not (await holder(await site.as_("planner"))).startswith("asleep")


async def test_claims_that_the_bus_lost_are_written_again(tmp_path: Path) -> None:
    async with roled(tmp_path) as site:
        bus = await site.as_("a")
        planner = await site.as_("planner")
        async with claimed(bus, Holder("local", "process 1"), {NAME: {}}, 1) as claims:

            async def gone() -> bool:
                return not await holder(planner)

            async def back() -> bool:
                return bool(await holder(planner))

            await until(gone, "the claim to expire unrenewed")
            keeping = asyncio.create_task(claims.keep())
            await until(back, "the claim to be written again")
            assert not keeping.done()
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


async def test_a_claim_that_another_connector_took_while_the_next_one_was_waited_for_ends_it_by_name() -> None:
    async with bench() as (_, bus), AsyncExitStack() as stack:
        killed = await stack.enter_async_context(AsyncExitStack())
        await killed.enter_async_context(claimed(bus, Holder("killed", "process 1"), {OTHER: {}}, 60))
        taken = asyncio.Event()

        async def on_claim(_: Msg) -> None:
            taken.set()

        await bus.nc.subscribe(bus.subjects.stored(bus.subjects.claim_deployment(NAME)), cb=on_claim)
        await bus.nc.flush()

        async def both() -> None:
            async with claimed(bus, Holder("both", "process 2"), {NAME: {}, OTHER: {}}, 1):
                raise AssertionError("begun without one of its claims")

        waiting = asyncio.create_task(both())
        stack.callback(waiting.cancel)
        await asyncio.wait_for(taken.wait(), 60)
        # That claim has run out before this one is taken, and the other one is still waited for.
        following = await stack.enter_async_context(claimed(bus, Holder("next", "process 3"), {NAME: {}}))
        keeping = asyncio.create_task(following.keep())
        stack.callback(keeping.cancel)
        assert not waiting.done()
        await killed.aclose()
        with pytest.raises(SecondConnectorError, match=rf"{NAME} is scaled by connector next \(process 3\)"):
            await asyncio.wait_for(waiting, 40)


async def test_a_claim_is_released_also_where_the_answer_to_its_last_renewal_did_not_come() -> None:
    async with bench() as (_, bus):
        subject = bus.subjects.claim_deployment(NAME)
        claim, renewal = (
            BusClaim(bus, subject, "local (process 1)", 60),
            BusClaim(bus, subject, "local (process 1)", 60),
        )
        assert await claim.take() is None
        # Stored for the same holder, and the claim knows nothing of it: as after a cancellation between both.
        assert await renewal.take() is None
        await claim.release()
        assert await holder(bus) == ""
