"""The metrics of a connector that all kinds share, read when the page is made."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from agent.connectors.scaling_channel import ScalingChannel


class ChannelMetrics:
    """A collector for one channel."""

    def __init__(self, channel: ScalingChannel) -> None:
        self._channel = channel

    def collect(self) -> Iterator[Metric]:
        """The decision that is pursued, the last one carried out, the connection, and what was received."""
        channel, labels = self._channel, ["deployment"]
        current = channel.state.current
        gauges = {
            "decision_id": (
                "The decision that is pursued or was last; -1: none.",
                -1 if current is None else current.decision_id,
            ),
            "scaled_decision_id": (
                "The last decision that was carried out completely; -1: none.",
                channel.state.scaled_id,
            ),
            "bus_connected": ("1 while connected to the bus.", float(channel.connected)),
        }
        for name, (text, value) in gauges.items():
            family = GaugeMetricFamily(f"wattscale_connector_{name}", text, labels=labels)
            family.add_metric([channel.deployment], float(value))
            yield family
        counter = CounterMetricFamily(
            "wattscale_connector_decisions", "Decisions received, by what became of them.", labels=[*labels, "verdict"]
        )
        for verdict, count in sorted(channel.received.items()):
            counter.add_metric([channel.deployment, verdict], count)
        yield counter
