"""A server of counts says that it can answer only once it listens."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.adapters.kubernetes.access import Access
from agent.adapters.kubernetes.api import KubernetesApi
from agent.connectors.autoscaler import metric_listener
from agent.connectors.autoscaler.autoscaler_file import ExternalScalerSection
from agent.connectors.autoscaler.external_metrics_api import ExternalMetricsApi
from agent.connectors.autoscaler.keda.external_scaler import ExternalScaler
from agent.connectors.autoscaler.keda.scaler_server import serve_scaler
from agent.connectors.autoscaler.metric_listener import MetricListener
from agent.connectors.autoscaler.newest_decision import NewestDecision
from bus_schemas.jetstream.publisher import publish
from deploy.compose.connectors.autoscaler_service import AutoscalerView
from tests.contract.autoscaler.autoscaler_site import TrustedCluster
from tests.contract.bus import bench, scaling, until
from tests.doubles.kubernetes import KubernetesDouble
from tests.free_ports import free_port

LONGEST_S = 60.0


@dataclass
class HeldBack:
    """A listener's address is bound only when the test lets it."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    allowed: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> HeldBack:
    held, bound = HeldBack(), metric_listener._bound

    async def later(host: str, port: int) -> socket.socket:
        held.asked.set()
        await held.allowed.wait()
        return await bound(host, port)

    monkeypatch.setattr(metric_listener, "_bound", later)
    return held


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_external_metrics_api_has_trouble_until_it_listens(tmp_path: Path, held_back: HeldBack) -> None:
    async with KubernetesDouble() as double, KubernetesApi(Access(double.url)) as api:
        cluster = TrustedCluster(double, tmp_path)
        await cluster.trust(cluster.front)
        files = (cluster.server.cert, cluster.server.key)
        external = ExternalMetricsApi(api, {}, files, ("127.0.0.1", 0), reload_s=0.01)
        async with running(external.run()), asyncio.timeout(LONGEST_S):
            await held_back.asked.wait()
            assert external.trouble == "the external metrics API does not listen yet"
            held_back.allowed.set()
            await until(lambda: not external.trouble, "the external metrics API to be ready")
            host, port = external.listener.address.split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()


async def test_the_metrics_api_is_not_listening_before_its_address_is_bound(held_back: HeldBack) -> None:
    async def answer(_: object) -> dict[str, int]:
        return {}

    listener = MetricListener(answer, "metrics-api", "127.0.0.1", 0)
    async with running(listener.run()), asyncio.timeout(LONGEST_S):
        await held_back.asked.wait()
        assert not listener.listening.is_set()
        held_back.allowed.set()
        await listener.listening.wait()
        host, port = listener.address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()


async def test_the_external_scaler_listens_once_it_says_so() -> None:
    settings, listening = ExternalScalerSection(host="127.0.0.1", port=free_port()), asyncio.Event()
    async with running(serve_scaler(settings, ExternalScaler({}), listening)), asyncio.timeout(LONGEST_S):
        await listening.wait()
        assert settings.port is not None
        _, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        writer.close()


async def test_a_connector_is_not_ready_while_one_of_its_servers_does_not_listen() -> None:
    async with bench() as (_, bus):
        await publish(bus, bus.subjects.decision_scaling("prod"), scaling("prod", 0), "decision-0")
        view = AutoscalerView(decisions={"prod": NewestDecision(bus, "prod", "prod", max_age_s=3600.0)})
        async with running(view.decisions["prod"].run()):
            await until(lambda: not view.not_ready, "the decision to be read")
            view.listening = {name: asyncio.Event() for name in ("metrics API", "external scaler")}
            assert view.not_ready == "the metrics API does not listen yet; the external scaler does not listen yet"
            view.listening["metrics API"].set()
            assert view.not_ready == "the external scaler does not listen yet"
            view.listening["external scaler"].set()
            assert not view.not_ready
