"""The metric names of the guides: 0.9's ``planner:*``, and the five of the SLA planner's demo. From the newest plans.

OpenTelemetry takes no colon in a name, so prometheus_client's collector serves them beside its page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily

Values = Mapping[str, float]

FROM_DYNAMO = {
    "planner:num_p_workers": ("num_prefill_replicas", "Number of prefill workers."),
    "planner:num_d_workers": ("num_decode_replicas", "Number of decode workers."),
    "planner:observed_ttft": ("observed_ttft_ms", "Observed time to first token (ms)."),
    "planner:observed_itl": ("observed_itl_ms", "Observed inter-token latency (ms)."),
    "planner:observed_request_rate": ("observed_requests_per_second", "Observed request rate (req/s)."),
    "planner:observed_request_duration": ("observed_request_duration_seconds", "Observed request duration (s)."),
    "planner:observed_isl": ("observed_input_sequence_tokens", "Observed input sequence length."),
    "planner:observed_osl": ("observed_output_sequence_tokens", "Observed output sequence length."),
    "planner:p_correction_factor": ("p_correction_factor", "Prefill correction factor."),
    "planner:d_correction_factor": ("d_correction_factor", "Decode correction factor."),
    "planner:predicted_request_rate": ("predicted_requests_per_second", "Predicted request rate (req/s)."),
    "planner:predicted_isl": ("predicted_input_sequence_tokens", "Predicted input sequence length."),
    "planner:predicted_osl": ("predicted_output_sequence_tokens", "Predicted output sequence length."),
    "planner:predicted_num_p": ("predicted_num_prefill_replicas", "Predicted number of prefill replicas."),
    "planner:predicted_num_d": ("predicted_num_decode_replicas", "Predicted number of decode replicas."),
    "planner:gpu_hours": ("gpu_hours", "Cumulative GPU hours used."),
    "dynamo_ttft_ms": ("observed_ttft_ms", "Mean TTFT of the last interval."),
    "dynamo_itl_ms": ("observed_itl_ms", "Mean ITL of the last interval."),
    "dynamo_request_rate": ("observed_requests_per_second", "Requests per second of the last interval."),
    "dynamo_prefill_workers": ("num_prefill_replicas", "Prefill workers now."),
    "dynamo_decode_workers": ("num_decode_replicas", "Decode workers now."),
}
"""Name: the value of ours that it shows, under Dynamo's later name, and its help."""
LABELS = ("dynamo_namespace", "model_name")


class GuideMetrics:
    """A collector. ``values`` gives each deployment's labels and values at a scrape."""

    def __init__(self, values: Callable[[], Iterable[tuple[tuple[str, str], Values]]]) -> None:
        self._values = values

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges with their present values."""
        known = list(self._values())
        for name, (source, text) in FROM_DYNAMO.items():
            gauge = GaugeMetricFamily(name, text, labels=LABELS)
            for labels, values in known:
                if source in values:
                    gauge.add_metric(labels, values[source])
            yield gauge
