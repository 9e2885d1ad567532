"""A double of a Dynamo frontend and its workers, as far as their ``/metrics`` go: real client library, real HTTP.

Tests push requests in and see what a reader makes of them; nothing here serves a token.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

TTFT_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ITL_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
TOKEN_BUCKETS = (100, 200, 500, 1000, 2000, 5000, 10000)


@dataclass(slots=True)
class EngineMetrics:
    """The registry of one frontend and its workers. ``namespace_label`` as a cluster's relabelling would add it."""

    namespace: str = "prod-chat"
    boot_s: float = 1000.0
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    started: Counter = field(init=False)
    ttft: Histogram = field(init=False)
    itl: Histogram = field(init=False)
    isl: Histogram = field(init=False)
    osl: Histogram = field(init=False)
    duration: Histogram = field(init=False)
    running: Gauge = field(init=False)
    waiting: Gauge = field(init=False)
    kv_usage: Gauge = field(init=False)

    def __post_init__(self) -> None:
        own: dict[str, Any] = {"registry": self.registry, "labelnames": ("model", "dynamo_namespace")}
        frontend = "dynamo_frontend_"
        self.started = Counter(f"{frontend}requests_started", "arrivals", **own)
        self.ttft = Histogram(f"{frontend}time_to_first_token_seconds", "ttft", buckets=TTFT_BUCKETS, **own)
        self.itl = Histogram(f"{frontend}inter_token_latency_seconds", "itl", buckets=ITL_BUCKETS, **own)
        self.isl = Histogram(f"{frontend}input_sequence_tokens", "isl", buckets=TOKEN_BUCKETS, **own)
        self.osl = Histogram(f"{frontend}output_sequence_tokens", "osl", buckets=TOKEN_BUCKETS, **own)
        self.duration = Histogram(f"{frontend}request_duration_seconds", "duration", buckets=TTFT_BUCKETS, **own)
        worker: dict[str, Any] = {
            "registry": self.registry,
            "labelnames": ("model_name", "dynamo_namespace", "dynamo_component", "worker"),
        }
        self.running = Gauge("vllm:num_requests_running", "running", **worker)
        self.waiting = Gauge("vllm:num_requests_waiting", "waiting", **worker)
        self.kv_usage = Gauge("vllm:kv_cache_usage_perc", "kv", **worker)
        Gauge("process_start_time_seconds", "boot", registry=self.registry).set_function(lambda: self.boot_s)

    def serve(self, model: str, count: int, *, isl: int, osl: int, ttft_s: float, itl_s: float) -> None:
        """``count`` equal requests come and go."""
        labels = (model, self.namespace)
        self.started.labels(*labels).inc(count)
        for _ in range(count):
            self.ttft.labels(*labels).observe(ttft_s)
            self.itl.labels(*labels).observe(itl_s)
            self.isl.labels(*labels).observe(isl)
            self.osl.labels(*labels).observe(osl)
            self.duration.labels(*labels).observe(ttft_s + itl_s * osl)

    def worker(self, model: str, component: str, name: str, *, running: int, waiting: int, kv: float) -> None:
        """Set one worker's gauges."""
        labels = (model, self.namespace, component, name)
        self.running.labels(*labels).set(running)
        self.waiting.labels(*labels).set(waiting)
        self.kv_usage.labels(*labels).set(kv)

    def page(self) -> str:
        """The exposition text."""
        return generate_latest(self.registry).decode()


@dataclass(slots=True)
class MetricsServer:
    """Serves a page on a free port. ``engine`` may be swapped (a restart); ``broken`` answers 500."""

    engine: EngineMetrics
    broken: bool = False
    url: str = ""
    requests: int = 0
    """How often the page was asked for."""
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> MetricsServer:
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/metrics"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, _request: web.Request) -> web.Response:
        self.requests += 1
        if self.broken:
            raise web.HTTPInternalServerError(text="broken on purpose")
        return web.Response(text=self.engine.page(), content_type="text/plain")
