"""The metrics of a connector that all kinds share, read when the page is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agent.connectors.scaling_channel import ScalingChannel


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


def _decision_id(channel: ScalingChannel) -> float:
    return -1 if channel.state.current is None else channel.state.current.decision_id
