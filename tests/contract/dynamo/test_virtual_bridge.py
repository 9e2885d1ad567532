"""The virtual connector between a real nats-server and a real etcd: what is written, acknowledged, and refused."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from agent.connectors.bus_claims import SecondConnectorError
from agent.connectors.scaling_channel import ScalingChannel
from agent.connectors.virtual.bridge import TWO_ROLES, VirtualBridge
from agent.connectors.virtual.etcd_gateway import EtcdAccess, EtcdAwayError, EtcdGateway, put
from agent.connectors.virtual.store_file import EtcdSection
from agent.core.scaling.claims import Holder
from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import Durable, keep
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages
from tests.contract.bus import bench, scaling, until
from tests.contract.dynamo.etcd_process import EtcdProcess

KEYS = ("num_prefill_workers", "num_decode_workers", "decision_id")
PREFIXES = ("v1/prod/planner/", "/prod/planner/")


class BridgedSite:
    """A bus and an etcd, with the planner's side that keeps the consumer."""

    def __init__(self, bus: Bus, etcd: EtcdProcess, gateway: EtcdGateway) -> None:
        self.bus, self.etcd, self.gateway = bus, etcd, gateway

    async def decide(self, number: int, decode: int = 2, incarnation: str = "one") -> v1.ScalingDecision:
        decision = scaling("prod", number, decode=decode, incarnation=incarnation)
        subject = self.bus.subjects.decision_scaling("prod")
        await publish(self.bus, subject, decision, f"decision-{incarnation}-{number}")
        return decision

    async def acks(self) -> list[v1.ScalingAck]:
        stored = await all_messages(self.bus, self.bus.subjects.ack_scaling("prod"))
        return [one.message for one in stored if isinstance(one.message, v1.ScalingAck)]

    async def acked(self, number: int, status: v1.AckStatus, incarnation: str = "one") -> v1.ScalingAck:
        async def found() -> v1.ScalingAck | None:
            matching = [one for one in await self.acks() if (one.decision_id, one.status) == (number, status)]
            return next((one for one in matching if one.incarnation == incarnation), None)

        found_ack = await until(found, f"{status} of decision {number}")
        assert found_ack is not None
        return found_ack

    async def keys(self) -> dict[str, str]:
        found, _ = await self.gateway.snapshot(PREFIXES)
        return {key: value.text for key, value in found.items()}

    async def passed_on(self, number: int) -> dict[str, str]:
        async def found() -> dict[str, str] | None:
            keys = await self.keys()
            return keys if keys.get("v1/prod/planner/decision_id") == str(number) else None

        keys = await until(found, f"decision_id {number} in etcd")
        assert keys is not None
        return keys

    async def write(self, key: str, value: str) -> None:
        assert await self.gateway.transact([], [put(key, value)])

    @asynccontextmanager
    async def connector(self, name: str = "virtual on here", access: EtcdAccess | None = None) -> AsyncIterator[None]:
        """The connector's two loops, ended without a farewell to anybody."""
        async with EtcdGateway(access or EtcdAccess((self.etcd.url,))) as gateway:
            channel = ScalingChannel(self.bus, "prod", name, leaves_other_pools=TWO_ROLES)
            bridge = VirtualBridge(gateway, channel, "prod", Holder(name, "process 1"))
            tasks = [asyncio.create_task(channel.run()), asyncio.create_task(bridge.run())]
            try:
                yield
                for task in tasks:
                    assert not task.done(), task
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def site(
    folder: Path, etcd: EtcdProcess | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[BridgedSite]:
    async with AsyncExitStack() as stack:
        etcd = await stack.enter_async_context(etcd or EtcdProcess(folder / "etcd"))
        _, bus = await stack.enter_async_context(bench(folder / "bus"))
        gateway = await stack.enter_async_context(EtcdGateway(EtcdAccess((etcd.url,), tls=tls)))
        keeper = asyncio.create_task(keep(bus, lambda: [Durable.scaling(bus, "prod")], 0.5))
        try:
            yield BridgedSite(bus, etcd, gateway)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)


def short(acks: list[v1.ScalingAck]) -> list[tuple[int, int, str, str | None]]:
    return [(one.decision_id, one.scaled_decision_id, one.status, one.phase) for one in acks]


async def test_one_transaction_serves_both_generations_and_completion_is_acknowledged(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector():
        await here.decide(0)
        keys = await here.passed_on(0)
        for prefix in PREFIXES:
            written = {key.removeprefix(prefix): text for key, text in keys.items() if key.startswith(prefix)}
            assert written == {"num_prefill_workers": "1", "num_decode_workers": "2", "decision_id": "0"}
        found, _ = await here.gateway.snapshot(PREFIXES)
        assert len({value.revision for value in found.values()}) == 1
        await here.write("v1/prod/planner/scaled_decision_id", "0")
        done = await here.acked(0, v1.AckStatus.APPLIED)
        assert (done.scaled_decision_id, done.replicas, done.external_decision_id) == (
            0,
            {"prefill": 1, "decode": 2},
            0,
        )
        assert (done.num_prefill_workers, done.num_decode_workers) == (1, 2)
        await here.decide(1)
        await here.passed_on(1)
        await here.write("/prod/planner/scaled_decision_id", "1")  # a client of the older generation
        await here.acked(1, v1.AckStatus.APPLIED)
        assert short(await here.acks()) == [
            (0, -1, "accepted", None),
            (0, -1, "accepted", "starting"),
            (0, 0, "applied", None),
            (1, 0, "accepted", None),
            (1, 0, "accepted", "starting"),
            (1, 1, "applied", None),
        ]


async def test_a_late_completion_of_a_superseded_decision_completes_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector():
        await here.decide(0)
        await here.passed_on(0)
        await here.decide(1, decode=5)
        await here.passed_on(1)
        await here.acked(0, v1.AckStatus.SUPERSEDED)
        await here.write("v1/prod/planner/scaled_decision_id", "0")
        await here.decide(2, decode=3)
        await here.passed_on(2)
        assert all(one.scaled_decision_id == -1 for one in await here.acks())
        await here.write("v1/prod/planner/scaled_decision_id", "2")
        assert (await here.acked(2, v1.AckStatus.APPLIED)).scaled_decision_id == 2


async def test_ids_go_on_after_etcd_and_the_connector_lost_everything(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.write("v1/prod/planner/scaled_decision_id", "40")  # of a planner before ours
        async with here.connector():
            await here.decide(0)
            await here.passed_on(41)
            await here.write("v1/prod/planner/scaled_decision_id", "41")
            assert (await here.acked(0, v1.AckStatus.APPLIED)).external_decision_id == 41
        await here.etcd.lose()
        await here.etcd.start()
        async with here.connector():
            await here.decide(1)
            await here.passed_on(42)
            await here.decide(0, incarnation="two")
            await here.passed_on(43)
            await here.write("v1/prod/planner/scaled_decision_id", "43")
            await here.acked(0, v1.AckStatus.APPLIED, "two")


async def test_while_etcd_is_away_decisions_wait_and_nothing_is_acknowledged_as_done(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector():
        await here.decide(0)
        await here.passed_on(0)
        await here.etcd.kill()
        await here.decide(1, decode=7)
        await here.acked(1, v1.AckStatus.ACCEPTED)
        await here.etcd.start()
        keys = await here.passed_on(1)
        assert keys["v1/prod/planner/num_decode_workers"] == "7"
        assert not [one for one in await here.acks() if one.status is v1.AckStatus.APPLIED]
        await here.write("v1/prod/planner/scaled_decision_id", "1")
        await here.acked(1, v1.AckStatus.APPLIED)


async def test_a_connector_that_comes_back_goes_on_with_the_decision_that_is_there(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        async with here.connector():
            await here.decide(0)
            await here.passed_on(0)
        await here.write("v1/prod/planner/scaled_decision_id", "0")
        async with here.connector():
            await here.acked(0, v1.AckStatus.APPLIED)
        assert (await here.keys())["v1/prod/planner/decision_id"] == "0"


async def test_another_planner_in_etcd_is_named_and_completes_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector():
        await here.decide(0)
        await here.passed_on(0)
        for prefix in PREFIXES:
            await here.write(f"{prefix}decision_id", "5")
            await here.write(f"{prefix}scaled_decision_id", "5")
        failed = await here.acked(0, v1.AckStatus.FAILED)
        assert "another planner writes below" in failed.reason
        assert failed.retryable
        await here.decide(1)
        await here.passed_on(6)  # the next decision takes its place, with an id above
        await here.write("v1/prod/planner/scaled_decision_id", "6")
        await here.acked(1, v1.AckStatus.APPLIED)


async def test_a_frontends_count_is_left_to_others_and_the_rest_is_carried_out(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector():
        decision = scaling("prod", 0).model_copy(update={"other_pools": {"frontend": 2}})
        await publish(here.bus, here.bus.subjects.decision_scaling("prod"), decision, "with-a-frontend")
        assert set(await here.passed_on(0)) == {f"{prefix}{key}" for prefix in PREFIXES for key in KEYS}
        await here.write("v1/prod/planner/scaled_decision_id", "0")
        done = await here.acked(0, v1.AckStatus.APPLIED)
        assert done.replicas == {"prefill": 1, "decode": 2}
        assert done.reason == f"frontend=2 is left to others: {TWO_ROLES}"
        await here.decide(1)
        await here.passed_on(1)
        await here.write("v1/prod/planner/scaled_decision_id", "1")
        assert (await here.acked(1, v1.AckStatus.APPLIED)).reason == ""


@pytest.mark.long
async def test_a_second_connector_is_refused_by_name(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector("virtual on a"):
        await here.decide(0)
        await here.passed_on(0)
        async with EtcdGateway(EtcdAccess((here.etcd.url,))) as gateway:
            channel = ScalingChannel(here.bus, "prod", "virtual on b")
            channel.started.set()
            second = VirtualBridge(gateway, channel, "prod", Holder("virtual on b", "process 2"))
            with pytest.raises(SecondConnectorError, match=r"virtual on a process 1.*virtual on b"):
                await asyncio.wait_for(second.run(), 60)


async def demand_password(gateway: EtcdGateway) -> None:
    """Create the user root, and let nobody else in."""
    await gateway._ask("/v3/auth/role/add", {"name": "root"})
    await gateway._ask("/v3/auth/user/add", {"name": "root", "password": "secret"})
    await gateway._ask("/v3/auth/user/grant", {"user": "root", "role": "root"})
    await gateway._ask("/v3/auth/enable", {})


async def test_user_and_password_and_a_token_that_etcd_forgot(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await demand_password(here.gateway)
        access = EtcdAccess((here.etcd.url,), "root", "secret")
        assert "secret" not in repr(access)
        async with EtcdGateway(EtcdAccess((here.etcd.url,), "root", "wrong")) as gateway:
            with pytest.raises(EtcdAwayError, match="does not let user root in"):
                await gateway.snapshot(PREFIXES)
        async with EtcdGateway(access) as here.gateway, here.connector(access=access):
            await here.decide(0)
            await here.passed_on(0)
            await here.etcd.kill()  # its tokens are in memory
            await here.etcd.start()
            await here.decide(1)
            await here.passed_on(1)


def certified(folder: Path) -> tuple[Path, Path]:
    """A certificate for etcd here, and its key."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    make += ["-days", "2", "-subj", "/CN=etcd", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key)]
    subprocess.run([*make, "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


async def test_watches_over_tls_with_user_and_password(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    options = ("--cert-file", str(certificate), "--key-file", str(key))
    etcd = EtcdProcess(tmp_path / "etcd", *options, scheme="https")
    tls = EtcdSection(endpoints=(etcd.url,), tls_ca_file=certificate).tls()
    async with site(tmp_path, etcd, tls) as here:
        await demand_password(here.gateway)
        access = EtcdAccess((etcd.url,), "root", "secret", tls)
        async with EtcdGateway(access) as here.gateway, here.connector(access=access):
            for number in range(3):
                await here.decide(number, decode=number + 1)
                await here.passed_on(number)
                await here.write("v1/prod/planner/scaled_decision_id", str(number))
                await here.acked(number, v1.AckStatus.APPLIED)
                if number == 1:
                    await etcd.kill()  # its tokens and watches end with it
                    await etcd.start()


async def test_tls(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    options = ("--cert-file", str(certificate), "--key-file", str(key))
    async with EtcdProcess(tmp_path / "etcd", *options, scheme="https") as etcd:
        tls = EtcdSection(endpoints=(etcd.url,), tls_ca_file=certificate).tls()
        async with EtcdGateway(EtcdAccess((etcd.url,), tls=tls)) as gateway:
            assert await gateway.transact([], [put("v1/prod/planner/decision_id", "3")])
            found, _ = await gateway.snapshot(PREFIXES)
            assert found["v1/prod/planner/decision_id"].text == "3"
        async with EtcdGateway(EtcdAccess((etcd.url,))) as gateway:
            with pytest.raises(EtcdAwayError, match="does not answer"):
                await gateway.snapshot(PREFIXES)


async def test_the_command_serves_and_ends_in_order(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        command = [sys.executable, "-m", "deploy.cli.main", "connector", "virtual", "--deployment", "prod"]
        command += ["--etcd", here.etcd.url, "--nats-url", here.bus.settings.servers[0], "--port", "none"]
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ})
        try:
            await here.decide(0)
            await here.passed_on(0)
            await here.write("v1/prod/planner/scaled_decision_id", "0")
            await here.acked(0, v1.AckStatus.APPLIED)
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 60) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
