"""What the health page and the metrics of a connector over a store (etcd, Redis) show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from prometheus_client.core import GaugeMetricFamily, Metric

from agent.connectors.scaling_channel import ScalingChannel
from deploy.compose.connectors.connector_metrics import ChannelMetrics
from deploy.compose.connectors.connector_process import metrics_page


class StoreBridge(Protocol):
    """What carries decisions into the store. ``trouble``: why it does not serve now."""

    @property
    def serving(self) -> bool: ...

    @property
    def trouble(self) -> str: ...


@dataclass(slots=True, eq=False)
class StoreView:
    """``channel`` and ``bridge`` are None until the bus was reached. Only etcd holds ids."""

    deployment: str
    store: Literal["etcd", "Redis"]
    channel: ScalingChannel | None = None
    bridge: StoreBridge | None = None

    @property
    def not_ready(self) -> str:
        """Why decisions cannot be carried out now; empty where they can."""
        if self.channel is None or self.bridge is None or not self.channel.started.is_set():
            return "the bus has not been reached yet"
        if not self.channel.connected:
            return "the bus is away"
        return "" if self.bridge.serving else f"{self.store}: {self.bridge.trouble or 'not connected'}"

    def collect(self) -> Iterator[Metric]:
        """The metrics, read when the page is made. A value that is not known is left out."""
        channel = self.channel
        if channel is None or self.bridge is None:
            return
        yield from ChannelMetrics(channel).collect()
        text = f"1 while {self.store} answers and this connector alone serves its keys."
        yield self._gauge("serving", text, float(self.bridge.serving))
        if self.store == "etcd":
            text = "The highest id that was passed on to etcd; -1: none."
            yield self._gauge("external_decision_id", text, float(channel.external_id))

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"wattscale_connector_{name}", text, labels=["deployment"])
        family.add_metric([self.deployment], value)
        return family

    def page(self) -> bytes:
        """The metrics as text in Prometheus' format."""
        return metrics_page(self)
