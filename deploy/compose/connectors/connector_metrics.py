"""Metrics of connectors that count replicas, read when the page is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agent.connectors.scaling_channel import ScalingChannel
from agent.core.scaling.scaling_types import WriterKind


class ChannelMetrics:
    """A collector for these channels."""

    def __init__(self, *channels: ScalingChannel) -> None:
        self._channels = channels

    def collect(self) -> Iterator[Metric]:
        """The decision that is pursued, the last one carried out, the connection, and what was received."""
        labels = ["deployment"]
        gauges: dict[str, tuple[str, Callable[[ScalingChannel], float]]] = {
            "decision_id": ("The decision that is pursued or was last; -1: none.", _decision_id),
            "scaled_decision_id": (
                "The last decision that was carried out completely; -1: none.",
                lambda channel: channel.state.scaled_id,
            ),
            "bus_connected": ("1 while connected to the bus.", lambda channel: float(channel.connected)),
        }
        for name, (text, read) in gauges.items():
            family = GaugeMetricFamily(f"wattscale_connector_{name}", text, labels=labels)
            for channel in self._channels:
                family.add_metric([channel.deployment], float(read(channel)))
            yield family
        counter = CounterMetricFamily(
            "wattscale_connector_decisions", "Decisions received, by what became of them.", labels=[*labels, "verdict"]
        )
        for channel in self._channels:
            for verdict, count in sorted(channel.received.items()):
                counter.add_metric([channel.deployment, verdict], count)
        yield counter


class CountsSeen(Protocol):
    """What compares the counts of one deployment; see `KubernetesScaler`."""

    @property
    def deployment(self) -> str: ...

    @property
    def second_writers(self) -> Mapping[str, WriterKind] | None: ...


class SecondWriterMetrics:
    """A collector for these deployments."""

    def __init__(self, *scalers: CountsSeen) -> None:
        self._scalers = scalers

    def collect(self) -> Iterator[Metric]:
        """Pools by the kind of their second writer, 0 where there is none; nothing of a deployment not compared yet."""
        family = GaugeMetricFamily(
            "wattscale_connector_second_writer_pools",
            "Pools whose replica count is also set by another writer, by its kind (autoscaler, person, other).",
            labels=["deployment", "writer"],
        )
        for scaler in self._scalers:
            if scaler.second_writers is None:
                continue
            found = Counter(scaler.second_writers.values())
            for kind in WriterKind:
                family.add_metric([scaler.deployment, kind.value], float(found[kind]))
        yield family


def _decision_id(channel: ScalingChannel) -> float:
    return -1 if channel.state.current is None else channel.state.current.decision_id
