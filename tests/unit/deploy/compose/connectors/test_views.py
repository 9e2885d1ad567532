"""The metrics page of each connector, made as Prometheus asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.connectors.scaling_channel import ScalingChannel
from agent.connectors.virtual.bridge import VirtualBridge
from agent.connectors.virtual.etcd_gateway import EtcdAccess, EtcdGateway
from agent.core.scaling.claims import Holder
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.settings import BusSettings
from deploy.compose.connectors.autoscaler_service import AutoscalerView
from deploy.compose.connectors.kubernetes_service import KubernetesView
from deploy.compose.connectors.local_service import LocalView
from deploy.compose.connectors.store_view import StoreView
from deploy.nats.embedded import EmbeddedServer


@pytest.mark.parametrize(
    "page",
    [StoreView("prod", "etcd").page, KubernetesView().page, LocalView().page, AutoscalerView().metrics],
    ids=["virtual", "kubernetes", "local", "autoscaler"],
)
def test_a_page_is_made_before_the_bus_was_reached(page: Callable[[], bytes]) -> None:
    assert b"} " not in page()  # No value is made up.


async def test_the_virtual_connectors_page_has_its_metrics(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        bus: Bus = await connect(BusSettings(servers=(server.url,), name="test"))
        try:
            channel = ScalingChannel(bus, "prod", "test")
            access = EtcdAccess(("http://127.0.0.1:9",), "", "", None, 1.0)
            bridge = VirtualBridge(EtcdGateway(access), channel, "prod", Holder("test", "process 1"))
            text = StoreView("prod", "etcd", channel, bridge).page().decode()
        finally:
            await bus.close()
    assert 'wattscale_connector_external_decision_id{deployment="prod"} -1.0' in text
    assert 'wattscale_connector_serving{deployment="prod"} 0.0' in text
    assert 'wattscale_connector_bus_connected{deployment="prod"} 1.0' in text
