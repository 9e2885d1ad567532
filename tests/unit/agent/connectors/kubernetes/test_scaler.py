"""The loop of one deployment: after a restart it counts pods as leaving that may have left unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")

from agent.connectors.kubernetes.cluster_client import ClusterClient
from agent.connectors.kubernetes.pool_watch import PoolWatch
from agent.connectors.kubernetes.scaler import KubernetesScaler
from agent.connectors.kubernetes.scaling_events import ScalingEvents
from agent.connectors.scaling_channel import ScalingChannel
from agent.core.scaling.kubernetes.scale_targets import ScaleTarget
from agent.core.scaling.scaling_types import PoolSeen
from bus_schemas import v1
from bus_schemas.jetstream.consumers import Durable, keep
from bus_schemas.jetstream.publisher import publish
from bus_schemas.v1 import AckPhase
from tests.contract.bus import bench, scaling, until

NAME = "prod"


class SteadyPools(PoolWatch):
    """A pool without any change, and what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    @property
    def unknown(self) -> str:
        return ""

    def targets(self) -> dict[str, ScaleTarget]:
        return {}

    def forget_lost(self) -> None:
        """Nothing is lost here."""

    def seen(self, raised_s: Mapping[str, float], *, resumed: bool = False) -> dict[str, PoolSeen]:
        self.asked.append(resumed)
        return {pool: PoolSeen(count, count) for pool, count in {"prefill": 1, "decode": 2}.items()}


@pytest.mark.parametrize("phase", [AckPhase.STARTING, AckPhase.APPLIED, AckPhase.DRAINING])
async def test_a_decision_found_at_the_start_is_resumed_whatever_its_phase(phase: AckPhase) -> None:
    async with bench() as (_, bus):
        decision, complete = scaling(NAME, 0), phase is not AckPhase.STARTING
        await publish(bus, bus.subjects.decision_scaling(NAME), decision, "decision")
        ack = v1.ScalingAck(
            time=datetime.now(UTC),
            deployment=NAME,
            decision_id=0,
            incarnation=decision.incarnation,
            scaled_decision_id=0 if complete else -1,
            status=v1.AckStatus.APPLIED if complete else v1.AckStatus.ACCEPTED,
            phase=phase,
        )
        await publish(bus, bus.subjects.ack_scaling(NAME), ack, "ack")
        channel, watch = ScalingChannel(bus, NAME, "test"), SteadyPools()
        cluster = ClusterClient.__new__(ClusterClient)
        scaler = KubernetesScaler(cluster, channel, watch, ScalingEvents(cluster), overwrite=False)
        parts = [asyncio.create_task(channel.run()), asyncio.create_task(scaler.run())]
        try:
            await until(lambda: watch.asked, "the pools to be looked at")
            assert watch.asked[0]
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)


async def test_where_no_connector_acknowledged_before_nothing_is_resumed() -> None:
    async with bench() as (_, bus):
        keeper = asyncio.create_task(keep(bus, lambda: [Durable.scaling(bus, NAME)], 0.5))
        channel, watch = ScalingChannel(bus, NAME, "test"), SteadyPools()
        cluster = ClusterClient.__new__(ClusterClient)
        scaler = KubernetesScaler(cluster, channel, watch, ScalingEvents(cluster), overwrite=False)
        channel_runs = asyncio.create_task(channel.run())
        await until(channel.started.is_set, "the channel to start")
        parts = [keeper, channel_runs, asyncio.create_task(scaler.run())]
        try:
            await until(lambda: not channel.changed.is_set(), "the scaler to wait")
            await publish(bus, bus.subjects.decision_scaling(NAME), scaling(NAME, 0), "decision")
            await until(lambda: watch.asked, "the pools to be looked at")
            assert not any(watch.asked)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
