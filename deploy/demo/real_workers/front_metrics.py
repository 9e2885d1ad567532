"""The front's metrics, under the names of Dynamo's frontend, and the gauges of the workers behind it.

Every request is counted here, so that no count is lost with a worker that leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from deploy.demo.real_workers.ready_workers import ReadyWorker
from deploy.engine.engine_telemetry import ITL_S, REQUEST_S, TOKENS, TTFT_S

PREFIX = "dynamo_frontend_"
WORKER_GAUGES = frozenset({"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"})
BEHIND = "wattscale_engine_behind_seconds"
ANSWER_S = 2.0


class FrontMetrics:
    """What is known of requests to one model."""

    def __init__(self, model: str) -> None:
        self._registry = CollectorRegistry()
        self._model = model
        self._workers = _WorkerGauges()
        ProcessCollector(registry=self._registry)
        self._registry.register(self._workers)
        self.queued = Gauge(
            f"{PREFIX}queued_requests", "Requests without a first token.", ("model",), registry=self._registry
        ).labels(model)
        self.started = Counter(
            f"{PREFIX}requests_started", "Requests that came.", ("model",), registry=self._registry
        ).labels(model)
        self.ttft_s = self._histogram("time_to_first_token_seconds", "Arrival to first token.", TTFT_S)
        self.itl_s = self._histogram("inter_token_latency_seconds", "Between two tokens.", ITL_S)
        self.duration_s = self._histogram("request_duration_seconds", "Arrival to last token.", REQUEST_S)
        self._isl = self._histogram("input_sequence_tokens", "Tokens of prompts.", TOKENS)
        self._osl = self._histogram("output_sequence_tokens", "Tokens of answers.", TOKENS)
        self._cached = self._histogram("cached_tokens", "Tokens of prompts that were in a worker's cache.", TOKENS)

    def ended(self, seconds: float, usage: dict[str, object]) -> None:
        """A whole answer was passed on, ``seconds`` after its request came. ``usage``: OpenAI's."""
        self.duration_s.observe(seconds)
        self._isl.observe(_whole(usage.get("prompt_tokens")))
        self._osl.observe(_whole(usage.get("completion_tokens")))
        details = usage.get("prompt_tokens_details")
        self._cached.observe(_whole(details.get("cached_tokens")) if isinstance(details, dict) else 0)

    @property
    def engines_behind_s(self) -> float:
        """How late the slowest worker computed its steps when the metrics were last read."""
        return self._workers.behind_s

    async def page(self, session: aiohttp.ClientSession, workers: Sequence[ReadyWorker]) -> bytes:
        """The metrics as Prometheus text. A worker that does not answer has no gauges in it."""
        pages = await asyncio.gather(*(_read(session, one) for one in workers))
        self._workers.take(zip(workers, pages, strict=True))
        return generate_latest(self._registry)

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(PREFIX + name, text, ("model",), registry=self._registry, buckets=bounds).labels(self._model)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


async def _read(session: aiohttp.ClientSession, worker: ReadyWorker) -> str:
    """A worker's metrics; empty where it does not answer."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    try:
        async with session.get(f"{worker.url}/metrics", timeout=timeout) as answer:
            return await answer.text() if answer.status == 200 else ""
    except (aiohttp.ClientError, TimeoutError, OSError):
        return ""


class _WorkerGauges(Collector):
    """The gauges of the workers, with the name of each, and its pool as Dynamo labels it."""

    def __init__(self) -> None:
        self._found: dict[str, Metric] = {}
        self.behind_s = 0.0

    def take(self, pages: Iterable[tuple[ReadyWorker, str]]) -> None:
        self._found, self.behind_s = {}, 0.0
        for worker, text in pages:
            own = {"worker": worker.worker, "dynamo_component": worker.pool}
            for family in text_string_to_metric_families(text):
                if family.name == BEHIND:
                    self.behind_s = max(self.behind_s, *(sample.value for sample in family.samples))
                if family.name in WORKER_GAUGES:
                    kept = self._found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    for sample in family.samples:
                        kept.add_sample(sample.name, {**sample.labels, **own}, sample.value)

    def collect(self) -> Iterable[Metric]:
        return list(self._found.values())
