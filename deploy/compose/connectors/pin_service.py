"""Composes the virtual connector that turns a Dynamo planner's decisions into pins, runs it, and stops it in order."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric

from agent.connectors.connector_file import ConnectorFile
from agent.connectors.virtual.etcd_gateway import EtcdAccess, EtcdGateway
from agent.connectors.virtual.pin_bridge import PinBridge
from deploy.cli.errors import UsageError
from deploy.compose.connectors.connector_process import connected, metrics_page, pages, run_until_signal, this_process


@dataclass(slots=True)
class PinView:
    """What the pages show. ``bridge`` is None until the bus was reached."""

    deployment: str
    bridge: PinBridge | None = None

    @property
    def not_ready(self) -> str:
        """Why decisions cannot be pinned now; empty where they can."""
        if self.bridge is None:
            return "the bus has not been reached yet"
        if not self.bridge.connected:
            return "the bus is away"
        return "" if self.bridge.serving else self.bridge.trouble

    def collect(self) -> Iterator[Metric]:
        """The metrics, read when the page is made."""
        bridge = self.bridge
        if bridge is None:
            return
        gauges = {
            "dynamo_decision_id": ("The Dynamo planner's decision in etcd; -1: none.", bridge.decision_id),
            "dynamo_scaled_decision_id": ("The one that is completed there; -1: none.", bridge.scaled_id),
            "dynamo_decision_open": (
                "1 while its decision is not completed; the log says why.",
                bool(bridge.open_because),
            ),
            "serving": ("1 while etcd answers and this connector alone serves the namespace.", bridge.serving),
            "bus_connected": ("1 while connected to the bus.", bridge.connected),
        }
        for name, (text, value) in gauges.items():
            family = GaugeMetricFamily(f"wattscale_connector_{name}", text, labels=["deployment"])
            family.add_metric([self.deployment], float(value))
            yield family

    def page(self) -> bytes:
        """The metrics as text in Prometheus' format."""
        return metrics_page(self)


async def run_pins(settings: ConnectorFile, access: EtcdAccess) -> int:
    """Run until SIGTERM or SIGINT. Raises UsageError for settings that cannot work here."""
    namespace = settings.served_namespace
    if not (namespace.isascii() and namespace.isprintable()):
        raise UsageError(f"namespace: {namespace!r} is not printable ASCII: commands cannot carry it")
    view = PinView(settings.deployment)
    return await run_until_signal({"connector": _pin(settings, access, view), **pages(settings.http, view, view.page)})


async def _pin(settings: ConnectorFile, access: EtcdAccess, view: PinView) -> None:
    """Pin decisions until cancelled. Raises SecondConnectorError."""
    name = settings.name or f"virtual (from-dynamo) on {socket.gethostname()}"
    bus = await connected(settings.nats.model_copy(update={"name": f"wattscale-pins-{settings.deployment}"}))
    try:
        async with EtcdGateway(access) as etcd:
            view.bridge = PinBridge(etcd, bus, settings.deployment, settings.served_namespace, this_process(name))
            await view.bridge.run()
    finally:
        await bus.close()
