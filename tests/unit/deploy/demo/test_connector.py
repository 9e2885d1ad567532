"""The connector brings decisions about on a cluster that is only a dictionary, and acknowledges what it did."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from bus_schemas import v1
from bus_schemas.errors import BusAwayError, NotStoredError
from deploy.demo import connector
from deploy.demo.connector import Connector, Workers


class ScriptedCluster:
    """Workers start and drain at once; ``free`` GPUs are left."""

    def __init__(self, free: int, **pools: int) -> None:
        self.counts = dict(pools)
        self.free = free
        self.hints: list[Sequence[str] | None] = []

    def pools(self) -> Mapping[str, Workers]:
        return {name: Workers(count, 0, 0) for name, count in self.counts.items()}

    def start(self, pool: str, gpus: Sequence[str] | None) -> bool:
        self.hints.append(gpus)
        if not self.free:
            return False
        self.free -= 1
        self.counts[pool] += 1
        return True

    def drain(self, pool: str) -> None:
        self.free += 1
        self.counts[pool] -= 1


class Client:
    """One decision, then silence; acknowledgements are kept. Calls named in ``away`` are not answered, each once."""

    def __init__(self, decision: v1.ScalingDecision, away: Sequence[str] = ()) -> None:
        self.decision = decision
        self.away = list(away)
        self.said: list[tuple[str, Any]] = []
        self.done = asyncio.Event()

    def ask(self, call: str, error: Exception) -> None:
        if call in self.away:
            self.away.remove(call)
            raise error

    async def wait(self) -> None:
        if self.done.is_set():
            await asyncio.Event().wait()

    async def get(self) -> v1.ScalingDecision:
        self.ask("get", BusAwayError("not connected"))
        return self.decision

    async def progress(self, decision: v1.ScalingDecision, done: int, total: int) -> None:
        self.ask("progress", BusAwayError("not connected"))

    async def superseded(self, decision: v1.ScalingDecision) -> bool:
        return self.decision.decision_id > decision.decision_id

    async def supersede(self, decision: v1.ScalingDecision) -> None:
        self.said.append(("superseded", decision.decision_id))

    async def complete(self, decision: v1.ScalingDecision) -> None:
        self.ask("complete", NotStoredError("no answer"))
        self.said.append(("complete", decision.decision_id))
        self.done.set()

    async def fail(self, decision: v1.ScalingDecision, reason: str, retryable: bool = True) -> None:
        self.ask("fail", NotStoredError("no answer"))
        self.said.append((reason, retryable))
        self.done.set()


def decision(hints: tuple[v1.PlacementHint, ...] = (), **pools: int) -> v1.ScalingDecision:
    targets = {name: v1.PoolTarget(role="decode", replicas=count) for name, count in pools.items()}
    return v1.ScalingDecision(
        time=datetime.now(UTC), deployment="d", decision_id=7, incarnation="i", epoch=1, pools=targets, placements=hints
    )


async def carried_out(
    wanted: v1.ScalingDecision, cluster: ScriptedCluster, away: Sequence[str] = ()
) -> list[tuple[str, Any]]:
    client = Client(wanted, away)
    task = asyncio.create_task(Connector(client, cluster).run())  # type: ignore[arg-type]
    await asyncio.wait_for(client.done.wait(), 60)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return client.said


async def test_workers_are_started_and_drained_to_the_target() -> None:
    cluster = ScriptedCluster(free=2, prefill=1, decode=4)
    assert await carried_out(decision(prefill=3, decode=2), cluster) == [("complete", 7)]
    assert cluster.counts == {"prefill": 3, "decode": 2}


async def test_drains_free_the_gpus_that_starts_need() -> None:
    cluster = ScriptedCluster(free=0, prefill=1, decode=2)
    assert await carried_out(decision(prefill=2, decode=1), cluster) == [("complete", 7)]


async def test_hints_are_followed() -> None:
    cluster = ScriptedCluster(free=1, prefill=1)
    hint = v1.PlacementHint(pool="prefill", node="n", gpus=("g7",))
    await carried_out(decision((hint,), prefill=2), cluster)
    assert cluster.hints == [("g7",)]


async def test_an_unknown_pool_never_can_be_carried_out() -> None:
    [(reason, retryable)] = await carried_out(decision(elsewhere=2), ScriptedCluster(free=1, prefill=1))
    assert "elsewhere" in reason
    assert retryable is False


async def test_no_free_gpu_is_reported_and_may_be_tried_again() -> None:
    [(reason, retryable)] = await carried_out(decision(prefill=2), ScriptedCluster(free=0, prefill=1))
    assert "no free GPU" in reason
    assert retryable is True


class Slow(ScriptedCluster):
    """Workers serve only after the connector has asked for a while."""

    asked = 0

    def pools(self) -> Mapping[str, Workers]:
        self.asked += 1
        late = int(self.asked < 20)
        return {name: Workers(count - late, late, 0) for name, count in self.counts.items()}


@pytest.mark.parametrize(
    ("free", "away", "said"),
    [
        (1, ["get"], ("complete", 7)),
        (1, ["progress"], ("complete", 7)),
        (1, ["complete", "complete"], ("complete", 7)),
        (0, ["fail"], ("no free GPU for decode", True)),
    ],
)
async def test_a_bus_that_is_away_is_outlived(
    monkeypatch: pytest.MonkeyPatch, free: int, away: list[str], said: tuple[str, Any]
) -> None:
    monkeypatch.setattr(connector, "PROGRESS_EVERY_S", 0.01)
    monkeypatch.setattr(connector, "POLL_S", 0.01)
    cluster = Slow(free=free, decode=1)
    assert await carried_out(decision(decode=2), cluster, away) == [said]
    assert cluster.counts == {"decode": 1 + free}


async def test_progress_is_reported_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    class NeverReady(ScriptedCluster):
        """Never ready; what was reported is kept by the client."""

        def pools(self) -> Mapping[str, Workers]:
            return {name: Workers(0, count, 0) for name, count in self.counts.items()}

    class ProgressClient(Client):
        async def progress(self, decision: v1.ScalingDecision, done: int, total: int) -> None:
            self.said.append(("progress", done))

    monkeypatch.setattr(connector, "PROGRESS_EVERY_S", 0.05)
    monkeypatch.setattr(connector, "POLL_S", 0.01)
    client = ProgressClient(decision(prefill=1))
    task = asyncio.create_task(Connector(client, NeverReady(free=1, prefill=1)).run())  # type: ignore[arg-type]
    await asyncio.wait([task], timeout=0.6)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert client.said == [("progress", 0)]


class Draining(ScriptedCluster):
    """A leaver of decode drains an answer that never ends."""

    def pools(self) -> Mapping[str, Workers]:
        return {name: Workers(n, 0, int(name == "decode" and n == 1)) for name, n in self.counts.items()}


async def test_a_newer_decision_takes_the_place_of_one_whose_leaver_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "PROGRESS_EVERY_S", 0.01)
    monkeypatch.setattr(connector, "POLL_S", 0.01)
    client, cluster = Client(decision(prefill=1, decode=1)), Draining(free=2, prefill=1, decode=2)
    task = asyncio.create_task(Connector(client, cluster).run())  # type: ignore[arg-type]
    async with asyncio.timeout(60):
        while cluster.counts["decode"] == 2:
            await asyncio.sleep(0.01)
        client.decision = decision(prefill=2, decode=2).model_copy(update={"decision_id": 8})
        await client.done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert client.said == [("superseded", 7), ("complete", 8)]
    assert cluster.counts == {"prefill": 2, "decode": 2}
