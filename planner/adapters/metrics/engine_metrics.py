"""The ONE table of metric names: which name carries which quantity, in which frontend or engine, in which unit.

Dynamo frontends 0.4 to 1.6 (older ones as far as they agree), vLLM, SGLang, TensorRT-LLM. Both ways of
reading (scrape, Prometheus) use it. A new engine is a ``Source`` in ``SOURCES`` with its components in ``COMPONENTS``;
a new quantity must be read in ``assemble.py``, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from planner.domain.pool import Role


class Quantity(StrEnum):
    """What a metric measures, in the unit of the observation."""

    REQUESTS = "requests"
    ISL_TOKENS = "isl_tokens"
    OSL_TOKENS = "osl_tokens"
    TTFT_MS = "ttft_ms"
    ITL_MS = "itl_ms"
    REQUEST_DURATION_S = "request_duration_s"
    KV_HIT_RATE = "kv_hit_rate"
    ACCEPT_LENGTH = "accept_length"
    QUEUED_REQUESTS = "queued_requests"
    RUNNING_REQUESTS = "running_requests"
    KV_USAGE = "kv_usage"


class EngineMetricKind(StrEnum):
    """How a metric is read. ``RATIO``: two counters; the quantity is ``offset + increase(name) / increase(per)``."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"
    RATIO = "ratio"


@dataclass(frozen=True, slots=True)
class EngineMetric:
    """One name. ``scale`` turns its unit into the quantity's. Counters are named with their ``_total``."""

    name: str
    kind: EngineMetricKind
    scale: float = 1.0
    per: str = ""
    offset: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One exporter. ``model_label`` names the label that holds the model; names are in order of preference.

    ``per_worker``: an engine, whose gauges are one worker's each, not a frontend.
    """

    name: str
    model_label: str
    metrics: Mapping[Quantity, tuple[EngineMetric, ...]]
    per_worker: bool = False


def _histogram(name: str, scale: float = 1.0) -> EngineMetric:
    return EngineMetric(name, EngineMetricKind.HISTOGRAM, scale)


def _counter(name: str) -> EngineMetric:
    return EngineMetric(name, EngineMetricKind.COUNTER)


def _gauge(name: str, scale: float = 1.0) -> EngineMetric:
    return EngineMetric(name, EngineMetricKind.GAUGE, scale)


def _ratio(name: str, per: str, offset: float = 0.0) -> EngineMetric:
    return EngineMetric(name, EngineMetricKind.RATIO, per=per, offset=offset)


MS = 1000.0

DYNAMO = Source(
    "dynamo",
    "model",
    {
        Quantity.REQUESTS: (
            _counter("dynamo_frontend_requests_started_total"),  # 1.x: counts arrivals
            _counter("dynamo_frontend_requests_total"),  # 0.4 and later: counts completions
        ),
        Quantity.ISL_TOKENS: (_histogram("dynamo_frontend_input_sequence_tokens"),),
        Quantity.OSL_TOKENS: (_histogram("dynamo_frontend_output_sequence_tokens"),),
        Quantity.TTFT_MS: (_histogram("dynamo_frontend_time_to_first_token_seconds", MS),),
        Quantity.ITL_MS: (_histogram("dynamo_frontend_inter_token_latency_seconds", MS),),
        Quantity.REQUEST_DURATION_S: (_histogram("dynamo_frontend_request_duration_seconds"),),
        Quantity.KV_HIT_RATE: (
            _histogram("dynamo_component_router_kv_hit_rate"),
            _ratio("dynamo_frontend_cached_tokens_sum", "dynamo_frontend_input_sequence_tokens_sum"),
        ),
        Quantity.QUEUED_REQUESTS: (_gauge("dynamo_frontend_queued_requests"),),
        Quantity.KV_USAGE: (_gauge("dynamo_component_kvstats_gpu_cache_usage_percent"),),  # 0..1 despite its name
    },
)

DYNAMO_BEFORE_0_4 = Source(
    "dynamo before 0.4",
    "model",
    {
        Quantity.REQUESTS: (_counter("nv_llm_http_service_requests_total"),),
        Quantity.ISL_TOKENS: (_histogram("nv_llm_http_service_input_sequence_tokens"),),
        Quantity.OSL_TOKENS: (_histogram("nv_llm_http_service_output_sequence_tokens"),),
        Quantity.TTFT_MS: (_histogram("nv_llm_http_service_time_to_first_token_seconds", MS),),
        Quantity.ITL_MS: (_histogram("nv_llm_http_service_inter_token_latency_seconds", MS),),
        Quantity.REQUEST_DURATION_S: (_histogram("nv_llm_http_service_request_duration_seconds"),),
    },
)

VLLM = Source(
    "vllm",
    "model_name",
    {
        Quantity.REQUESTS: (_counter("vllm:request_success_total"),),  # counts completions
        Quantity.ISL_TOKENS: (_histogram("vllm:request_prompt_tokens"),),
        Quantity.OSL_TOKENS: (_histogram("vllm:request_generation_tokens"),),
        Quantity.TTFT_MS: (_histogram("vllm:time_to_first_token_seconds", MS),),
        Quantity.ITL_MS: (
            _histogram("vllm:inter_token_latency_seconds", MS),
            _histogram("vllm:time_per_output_token_seconds", MS),  # older
        ),
        Quantity.REQUEST_DURATION_S: (_histogram("vllm:e2e_request_latency_seconds"),),
        Quantity.KV_HIT_RATE: (
            _ratio("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),
            _ratio("vllm:gpu_prefix_cache_hits_total", "vllm:gpu_prefix_cache_queries_total"),  # older
        ),
        Quantity.ACCEPT_LENGTH: (
            _ratio("vllm:spec_decode_num_accepted_tokens_total", "vllm:spec_decode_num_drafts_total", 1.0),
        ),
        Quantity.QUEUED_REQUESTS: (_gauge("vllm:num_requests_waiting"),),
        Quantity.RUNNING_REQUESTS: (_gauge("vllm:num_requests_running"),),
        Quantity.KV_USAGE: (
            _gauge("vllm:kv_cache_usage_perc"),
            _gauge("vllm:gpu_cache_usage_perc"),  # older
        ),
    },
    per_worker=True,
)

SGLANG = Source(
    "sglang",
    "model_name",
    {
        Quantity.REQUESTS: (_counter("sglang:num_requests_total"),),  # counts completions
        Quantity.ISL_TOKENS: (
            _histogram("sglang:prompt_tokens_histogram"),
            _ratio("sglang:prompt_tokens_total", "sglang:num_requests_total"),
        ),
        Quantity.OSL_TOKENS: (
            _histogram("sglang:generation_tokens_histogram"),
            _ratio("sglang:generation_tokens_total", "sglang:num_requests_total"),
        ),
        Quantity.TTFT_MS: (_histogram("sglang:time_to_first_token_seconds", MS),),
        Quantity.ITL_MS: (
            _histogram("sglang:inter_token_latency_seconds", MS),
            _histogram("sglang:time_per_output_token_seconds", MS),  # older
        ),
        Quantity.REQUEST_DURATION_S: (_histogram("sglang:e2e_request_latency_seconds"),),
        Quantity.KV_HIT_RATE: (_gauge("sglang:cache_hit_rate"),),
        Quantity.ACCEPT_LENGTH: (_gauge("sglang:spec_accept_length"),),
        Quantity.QUEUED_REQUESTS: (_gauge("sglang:num_queue_reqs"),),
        Quantity.RUNNING_REQUESTS: (_gauge("sglang:num_running_reqs"),),
        Quantity.KV_USAGE: (_gauge("sglang:token_usage"),),
    },
    per_worker=True,
)

TRTLLM = Source(
    "tensorrt-llm",
    "model_name",
    {
        Quantity.REQUESTS: (_counter("trtllm_request_success_total"),),  # counts completions
        Quantity.TTFT_MS: (_histogram("trtllm_time_to_first_token_seconds", MS),),
        Quantity.ITL_MS: (_histogram("trtllm_time_per_output_token_seconds", MS),),
        Quantity.REQUEST_DURATION_S: (_histogram("trtllm_e2e_request_latency_seconds"),),
        Quantity.KV_HIT_RATE: (_gauge("trtllm_kv_cache_hit_rate"),),
        Quantity.ACCEPT_LENGTH: (_gauge("trtllm_spec_decode_acceptance_length"),),
        Quantity.QUEUED_REQUESTS: (_gauge("trtllm_num_requests_waiting"),),
        Quantity.RUNNING_REQUESTS: (_gauge("trtllm_num_requests_running"),),
        Quantity.KV_USAGE: (_gauge("trtllm_kv_cache_utilization"),),
    },
    per_worker=True,
)

SOURCES = (DYNAMO, DYNAMO_BEFORE_0_4, VLLM, SGLANG, TRTLLM)
"""In order of preference: a frontend sees every request once; an engine of a disaggregated pair sees half of one."""

TRAFFIC = (
    Quantity.REQUESTS,
    Quantity.ISL_TOKENS,
    Quantity.OSL_TOKENS,
    Quantity.TTFT_MS,
    Quantity.ITL_MS,
    Quantity.REQUEST_DURATION_S,
)
"""Quantities of requests: all of one deployment are read from ONE source, so that they describe the same requests."""

NAMESPACE_LABEL = "dynamo_namespace"
POOL_LABEL = "dynamo_component"
WORKER_LABELS = ("worker", "worker_id", "pod", "instance", "engine")
"""Labels that tell workers apart, in order of preference."""

COMPONENTS: Mapping[str, Role] = {
    "prefill": Role.PREFILL,
    "prefillworker": Role.PREFILL,
    "vllmprefillworker": Role.PREFILL,
    "sglangprefillworker": Role.PREFILL,
    "trtllmprefillworker": Role.PREFILL,
    "decode": Role.DECODE,
    "backend": Role.DECODE,
    "decodeworker": Role.DECODE,
    "vllmdecodeworker": Role.DECODE,
    "sglangdecodeworker": Role.DECODE,
    "trtllmdecodeworker": Role.DECODE,
    "tensorrt_llm": Role.DECODE,
    "tensorrt_llm_next": Role.PREFILL,
    "aggregated": Role.AGGREGATED,
    "agg": Role.AGGREGATED,
    "worker": Role.AGGREGATED,
}
"""Components of a Dynamo deployment by the role they play; a pool's own ``component`` setting comes first."""

BOOT = "process_start_time_seconds"
"""Changes when an exporter restarts, even where its counters have already grown past what was last seen."""
