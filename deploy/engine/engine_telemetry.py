"""The engine's metrics, under the names that vLLM gives them (its v1 engine), and the watts of its simulated GPUs.

Only ``wattscale_engine_*`` are names of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deploy.engine.continuous_batch import ContinuousBatch, Generation
from deploy.engine.engine_gpus import EngineGpus
from deploy.engine.kv_blocks import BLOCK_TOKENS

LABELS = ("model_name", "engine")
TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
ITL_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
REQUEST_S = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


class EngineTelemetry:
    """One engine's metrics. ``labels`` are added to the GPUs' series only: vLLM's have its own two labels."""

    def __init__(self, model: str, batch: ContinuousBatch, gpus: EngineGpus, behind_s: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        ProcessCollector(registry=self.registry)
        self.registry.register(_Watts(gpus))
        cache = Gauge(
            "vllm:cache_config_info",
            "The KV cache: blocks, and tokens of each.",
            ("block_size", "num_gpu_blocks", "engine"),
            registry=self.registry,
        )
        cache.labels(str(BLOCK_TOKENS), str(batch.kv.capacity), "0").set(1)
        self._gauge("vllm:num_requests_running", "Requests in the batch.", lambda: len(batch.running))
        self._gauge("vllm:num_requests_waiting", "Requests that wait.", lambda: len(batch.waiting))
        self._gauge("vllm:kv_cache_usage_perc", "Share of the KV cache in use, 0..1.", lambda: batch.kv.usage)
        self._gauge("wattscale_engine_behind_seconds", "How late this process computes its steps.", behind_s)
        self._prompt = self._counter("vllm:prompt_tokens", "Prompt tokens of requests that were admitted.")
        self._generated = self._counter("vllm:generation_tokens", "Tokens of answers.")
        self._queries = self._counter("vllm:prefix_cache_queries", "Prompt tokens that were searched in the cache.")
        self._hits = self._counter("vllm:prefix_cache_hits", "Prompt tokens that were found in the cache.")
        self._preemptions = self._counter("vllm:num_preemptions", "Requests that lost their place in the batch.")
        self._preempted = 0
        self._batch = batch
        self._success = Counter(
            "vllm:request_success", "Requests that ended.", (*LABELS, "finished_reason"), registry=self.registry
        )
        for reason in ("stop", "length", "abort"):
            self._success.labels(model, "0", reason)
        self._ttft = self._histogram("vllm:time_to_first_token_seconds", "Arrival to first token.", TTFT_S)
        self._itl = self._histogram("vllm:inter_token_latency_seconds", "Between two tokens.", ITL_S)
        self._e2e = self._histogram("vllm:e2e_request_latency_seconds", "Arrival to last token.", REQUEST_S)
        self._queue = self._histogram("vllm:request_queue_time_seconds", "Arrival to admission.", REQUEST_S)
        self._isl = self._histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", TOKENS)
        self._osl = self._histogram("vllm:request_generation_tokens", "Answer tokens of a request.", TOKENS)

    def gained(self, generation: Generation, before_s: float, now_s: float) -> None:
        """A token was made at ``now_s``. ``before_s``: when the one before was; negative for the first."""
        self._generated.inc()
        if before_s >= 0:
            self._itl.observe(now_s - before_s)
            return
        self._ttft.observe(now_s - generation.arrived_s)
        self._queue.observe(generation.admitted_s - generation.arrived_s)
        self._prompt.inc(generation.prompt_tokens)
        self._queries.inc(generation.prompt_tokens)
        self._hits.inc(generation.cached_tokens)

    def ended(self, generation: Generation, reason: str, now_s: float) -> None:
        """A request ended with ``stop``, ``length`` or ``abort``."""
        self._success.labels(self._model, "0", reason).inc()
        if reason != "abort":
            self._e2e.observe(now_s - generation.arrived_s)
            self._isl.observe(generation.prompt_tokens)
            self._osl.observe(generation.done)

    def page(self) -> bytes:
        """The metrics as Prometheus text."""
        self._preemptions.inc(self._batch.preempted - self._preempted)
        self._preempted = self._batch.preempted
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, LABELS, registry=self.registry).labels(self._model, "0").set_function(value)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, LABELS, registry=self.registry).labels(self._model, "0")

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, LABELS, registry=self.registry, buckets=bounds).labels(self._model, "0")


class _Watts(Collector):
    def __init__(self, gpus: EngineGpus) -> None:
        self._gpus = gpus

    def collect(self) -> Iterable[Metric]:
        draw = GaugeMetricFamily("wattscale_engine_gpu_draw_watts", "Simulated draw.", labels=["gpu"])
        cap = GaugeMetricFamily("wattscale_engine_gpu_cap_watts", "The cap in force.", labels=["gpu"])
        for gpu in self._gpus.gpus:
            state = gpu.read()
            draw.add_metric([gpu.uuid], state.draw_mw / 1000)
            cap.add_metric([gpu.uuid], state.enforced_mw / 1000)
        return [draw, cap]
