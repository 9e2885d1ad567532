"""The virtual connector between a real nats-server and a real Redis: what is written, acknowledged, and refused.

The actuator of Dynamo's proposal is played by the test, which writes the fields that the proposal gives it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from agent.connectors.bus_claims import SecondConnectorError
from agent.connectors.scaling_channel import ScalingChannel
from agent.connectors.virtual.bridge import TWO_ROLES
from agent.connectors.virtual.dynamo_hash import DEFAULT_PREFIX, target_key
from agent.connectors.virtual.redis_bridge import RedisBridge
from agent.connectors.virtual.redis_store import RedisAwayError, RedisStore
from agent.core.scaling.claims import Holder
from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import Durable, keep
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages
from deploy.nats.embedded import EmbeddedServer
from tests.contract.bus import bench, scaling, until
from tests.contract.dynamo.test_virtual_bridge import certified
from tests.contract.redis.redis_process import RedisProcess

MODEL = "Llama-3.1-8B"
KEY = f"dynamo:planner:target:{{prod:{MODEL}}}"
NOW_S = 1764000000.25


class HashedSite:
    """A bus and a Redis, with the planner's side that keeps the consumer. Also plays the actuator."""

    def __init__(self, server: EmbeddedServer, bus: Bus, redis: RedisProcess) -> None:
        self.server, self.bus, self.redis = server, bus, redis
        self._reports = 0

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """Its types mix calls that answer at once with those that are awaited."""
        client: Redis = self.redis.client()
        try:
            yield client
        finally:
            await client.aclose()

    async def decide(self, number: int, decode: int = 2, incarnation: str = "one") -> None:
        decision = scaling("prod", number, decode=decode, incarnation=incarnation)
        subject = self.bus.subjects.decision_scaling("prod")
        await publish(self.bus, subject, decision, f"decision-{incarnation}-{number}")

    async def acks(self) -> list[v1.ScalingAck]:
        stored = await all_messages(self.bus, self.bus.subjects.ack_scaling("prod"))
        return [one.message for one in stored if isinstance(one.message, v1.ScalingAck)]

    async def acked(self, number: int, status: v1.AckStatus, words: str = "") -> v1.ScalingAck:
        async def found() -> v1.ScalingAck | None:
            matching = [one for one in await self.acks() if (one.decision_id, one.status) == (number, status)]
            return next((one for one in matching if words in one.reason), None)

        found_ack = await until(found, f"{status} of decision {number}")
        assert found_ack is not None
        return found_ack

    async def hash(self) -> dict[str, str]:
        async with self.client() as client:
            fields: dict[str, str] = await client.hgetall(KEY)
            return fields

    async def passed_on(self, decode: int) -> dict[str, str]:
        async def found() -> dict[str, str] | None:
            fields = await self.hash()
            return fields if fields.get("decode") == str(decode) else None

        fields = await until(found, f"decode={decode} in the hash")
        assert fields is not None
        return fields

    async def report(self, decode: int, *, stable: bool = True, prefill: int = 1) -> None:
        """What an actuator writes after it has looked at its workers."""
        self._reports += 1
        fields: dict[str, Any] = {"prefill_active": prefill, "decode_active": decode}
        fields |= {"prefill_stable": "true", "decode_stable": str(stable), "observed_at": NOW_S + self._reports}
        async with self.client() as client:
            await client.hset(KEY, mapping=fields)

    @asynccontextmanager
    async def connector(self, name: str = "virtual on here") -> AsyncIterator[RedisBridge]:
        """The connector's two loops, ended without a farewell to anybody."""
        async with RedisStore(self.redis.access, target_key(DEFAULT_PREFIX, "prod", MODEL)) as store:
            channel = ScalingChannel(self.bus, "prod", name, leaves_other_pools=TWO_ROLES)
            bridge = RedisBridge(store, channel, Holder(name, "process 1"), clock=lambda: NOW_S)
            tasks = [asyncio.create_task(channel.run()), asyncio.create_task(bridge.run())]
            try:
                yield bridge
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(isinstance(end, asyncio.CancelledError) for end in ends), ends


@asynccontextmanager
async def site(folder: Path, redis: RedisProcess | None = None) -> AsyncIterator[HashedSite]:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis or RedisProcess(folder / "redis"))
        server, bus = await stack.enter_async_context(bench(folder / "bus"))
        keeper = asyncio.create_task(keep(bus, lambda: [Durable.scaling(bus, "prod")], 0.5))
        try:
            yield HashedSite(server, bus, redis)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)


async def test_a_decision_is_written_and_completed_by_a_stable_report_that_came_after_it(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector():
        await here.decide(0)
        assert await here.passed_on(2) == {"prefill": "1", "decode": "2", "updated_at": f"{NOW_S:.6f}"}
        await here.report(1)
        await here.report(2, stable=False)
        await here.report(2)
        done = await here.acked(0, v1.AckStatus.APPLIED)
        assert (done.scaled_decision_id, done.replicas, done.external_decision_id) == (
            0,
            {"prefill": 1, "decode": 2},
            None,
        )
        # Its counts are those of the last report, which is older than the decision.
        await here.decide(1, decode=3)
        await here.passed_on(3)
        await here.decide(2, decode=2)
        await here.passed_on(2)
        await here.acked(1, v1.AckStatus.SUPERSEDED)
        await here.report(3, stable=False)
        assert (await here.acks())[-1].scaled_decision_id == 0
        await here.report(2)
        assert (await here.acked(2, v1.AckStatus.APPLIED)).scaled_decision_id == 2


async def test_a_worker_that_is_lost_after_completion_is_acknowledged(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector():
        await here.decide(0)
        await here.passed_on(2)
        await here.report(2)
        await here.acked(0, v1.AckStatus.APPLIED)
        await here.report(1)
        lost = await here.acked(0, v1.AckStatus.PARTIAL)
        assert (lost.reason, lost.replicas["decode"]) == ("workers that are active: 1 of 2 decode", 1)


async def test_while_redis_is_away_decisions_wait_and_nothing_is_acknowledged_as_done(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector() as bridge:
        await here.decide(0)
        await here.passed_on(2)
        await here.redis.kill()
        await here.decide(1, decode=7)
        await here.acked(1, v1.AckStatus.ACCEPTED)
        await until(lambda: not bridge.serving, "the connector to miss Redis")
        assert "Redis at 127.0.0.1" in bridge.trouble
        assert not [one for one in await here.acks() if one.status is v1.AckStatus.APPLIED]
        await here.redis.start()
        await here.passed_on(7)
        await here.report(7)
        await here.acked(1, v1.AckStatus.APPLIED)
        assert bridge.trouble == ""


async def test_a_redis_that_lost_everything_gets_the_decision_again(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector():
        await here.decide(0)
        await here.passed_on(2)
        await here.report(2)
        await here.acked(0, v1.AckStatus.APPLIED)
        await here.redis.lose()
        await here.redis.start()
        await here.passed_on(2)
        completed = [one for one in await here.acks() if one.status is v1.AckStatus.APPLIED]
        assert len(completed) == 1


async def test_a_connector_that_comes_back_goes_on_with_the_decision_that_is_there(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        async with here.connector():
            await here.decide(0)
            written = await here.passed_on(2)
        await here.report(2)
        async with here.connector():
            await here.acked(0, v1.AckStatus.APPLIED)
            assert (await here.hash())["updated_at"] == written["updated_at"]
        async with here.connector():
            await here.decide(1, decode=4)
            await here.passed_on(4)
        assert [one.decision_id for one in await here.acks() if one.status is v1.AckStatus.APPLIED] == [0]


async def test_another_planner_in_the_hash_is_named_and_not_fought(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector(), here.client() as client:
        await here.decide(0)
        await here.passed_on(2)
        await client.hset(KEY, "decode", "9")
        await here.report(9)
        failed = await here.acked(0, v1.AckStatus.FAILED)
        seen = "decode 9, prefill 1 where this one has decode 2, prefill 1"
        assert failed.reason == f"another planner writes its hash in Redis ({seen}): stop it"
        assert failed.retryable
        assert (await here.hash())["decode"] == "9"
        await here.decide(1, decode=3)  # the next decision takes its place
        await here.passed_on(3)
        await here.report(3)
        await here.acked(1, v1.AckStatus.APPLIED)


async def test_a_count_that_is_none_completes_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector(), here.client() as client:
        await here.decide(0)
        await here.passed_on(2)
        await client.hset(KEY, mapping={"prefill_active": "-1", "decode_active": "two", "observed_at": "1"})
        await here.acked(0, v1.AckStatus.FAILED, "the actuator writes no count to decode_active, prefill_active")
        await here.report(2)
        await here.acked(0, v1.AckStatus.APPLIED)


@pytest.mark.long
async def test_a_second_connector_is_refused_by_name(tmp_path: Path) -> None:
    async with site(tmp_path) as here, here.connector("virtual on a"):
        await here.decide(0)
        await here.passed_on(2)
        async with RedisStore(here.redis.access, KEY) as store:
            channel = ScalingChannel(here.bus, "prod", "virtual on b")
            channel.started.set()
            second = RedisBridge(store, channel, Holder("virtual on b", "process 2"))
            with pytest.raises(SecondConnectorError, match=r"virtual on a process 1.*virtual on b"):
                await asyncio.wait_for(second.run(), 60)


async def test_a_cancellation_is_never_lost(tmp_path: Path) -> None:
    async def read_on(store: RedisStore) -> None:
        while True:
            await store.read()

    async with RedisProcess(tmp_path / "redis") as redis, RedisStore(redis.access, KEY) as store:
        await store.read()
        for turns in range(60):
            looking = asyncio.create_task(read_on(store))
            for _ in range(turns):
                await asyncio.sleep(0)
            looking.cancel()
            await asyncio.wait([looking], timeout=20)
            assert looking.cancelled(), f"a call that was cancelled after {turns} turns of the loop goes on"


async def test_a_redis_that_does_not_answer_is_away(tmp_path: Path) -> None:
    async with RedisProcess(tmp_path / "redis", timeout_s=0.3) as redis, RedisStore(redis.access, KEY) as store:
        await store.read()
        redis.freeze()
        with pytest.raises(RedisAwayError, match="TimeoutError"):
            await store.read()


async def test_the_command_serves_over_tls_with_user_and_password_and_ends_in_order(tmp_path: Path) -> None:
    certificate, key = certified(tmp_path)
    options = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no"]
    options += ["--user", "default", "off", "--user", "bridge", "on", ">secret", "~*", "&*", "+@all"]
    access = {"user": "bridge", "password": "secret", "tls": {"ssl_ca_certs": str(certificate)}}
    redis = RedisProcess(tmp_path / "redis", *options, **access)
    assert "secret" not in repr(redis.access)
    password = tmp_path / "password"
    password.write_text("secret\n")
    async with site(tmp_path, redis) as here:
        command = [sys.executable, "-m", "deploy.cli.main", "connector", "virtual", "--deployment", "prod"]
        command += ["--store", "redis", "--model", MODEL, "--redis", redis.url, "--redis-ca", str(certificate)]
        command += ["--redis-user", "bridge", "--redis-password-file", str(password)]
        command += ["--nats-url", here.server.url, "--port", "none"]
        process = await asyncio.create_subprocess_exec(*command, env={**os.environ}, stderr=asyncio.subprocess.PIPE)
        try:
            await here.decide(0)
            await here.passed_on(2)
            await here.report(2)
            await here.acked(0, v1.AckStatus.APPLIED)
            process.terminate()
            _, log = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 0
            assert b"secret" not in log
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
