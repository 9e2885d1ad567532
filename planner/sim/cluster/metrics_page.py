"""The plant's state as a Prometheus page, under the names that real frontends and engines use.

The planner scrapes this page like any other, and it exports nothing that a Dynamo frontend and vLLM workers would not.
Only the worker counts and the load's clock are the simulation's own (``wattscale_sim_*``).
"""

from __future__ import annotations

from collections.abc import Iterator

from planner.adapters.metrics.simulated_cluster import LOAD_SECONDS, WORKERS
from planner.sim.cluster.decode_worker import DecodeWorker
from planner.sim.cluster.plant import Plant
from planner.sim.cluster.prefill_worker import PrefillWorker
from planner.sim.cluster.weighted_histogram import WeightedHistogram
from planner.sim.cluster.worker import Worker, WorkerState
from planner.sim.cluster.worker_pool import Pool

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ROUTER = "router"
"""Worker label for requests that wait while no worker is ready."""


def render(plant: Plant, model: str, namespace: str) -> str:
    """The page as text. ``model`` and ``namespace`` become labels, as in Dynamo."""
    return "".join(_lines(plant, _label(model), _label(namespace)))


def _label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _lines(plant: Plant, model: str, namespace: str) -> Iterator[str]:
    books = plant.frontend
    labels = f'model="{model}",dynamo_namespace="{namespace}"'
    yield from _counter("dynamo_frontend_requests_started_total", labels, books.started)
    yield from _counter("dynamo_frontend_requests_total", labels, books.completed)
    yield from _histogram("dynamo_frontend_time_to_first_token_seconds", labels, books.ttft)
    yield from _histogram("dynamo_frontend_inter_token_latency_seconds", labels, books.gaps)
    yield from _histogram("dynamo_frontend_request_duration_seconds", labels, books.duration)
    yield from _histogram("dynamo_frontend_input_sequence_tokens", labels, books.input_tokens)
    yield from _histogram("dynamo_frontend_output_sequence_tokens", labels, books.output_tokens)
    if any(pool.prefix_cache for pool in plant.spec.pools):
        name = "dynamo_frontend_cached_tokens"
        yield f"# TYPE {name} summary\n{name}_sum{{{labels}}} {books.cached_tokens!r}\n"
        yield f"{name}_count{{{labels}}} {books.started}\n"
    yield from _worker_gauges(plant, model, namespace)
    yield f"# TYPE {WORKERS} gauge\n"
    for name, pool in plant.pools.items():
        counts = pool.counts()
        states = {"ready": counts.ready, "starting": counts.starting, "terminating": counts.draining, "pending": 0}
        for state, count in states.items():
            yield f'{WORKERS}{{dynamo_namespace="{namespace}",pool="{name}",state="{state}"}} {count}\n'
    yield f"# TYPE {LOAD_SECONDS} gauge\n"
    yield f"{LOAD_SECONDS} {plant.now_s!r}\n"


def _counter(name: str, labels: str, value: float) -> Iterator[str]:
    yield f"# TYPE {name} counter\n{name}{{{labels}}} {value}\n"


def _histogram(name: str, labels: str, histogram: WeightedHistogram) -> Iterator[str]:
    yield f"# TYPE {name} histogram\n"
    for bound, count in histogram.cumulative():
        yield f'{name}_bucket{{{labels},le="{bound}"}} {count!r}\n'
    yield f"{name}_sum{{{labels}}} {histogram.sum!r}\n{name}_count{{{labels}}} {histogram.total!r}\n"


def _worker_gauges(plant: Plant, model: str, namespace: str) -> Iterator[str]:
    rows: dict[str, list[str]] = {
        "vllm:num_requests_running": [],
        "vllm:num_requests_waiting": [],
        "vllm:kv_cache_usage_perc": [],
    }
    for name, pool in plant.pools.items():
        common = f'model_name="{model}",dynamo_namespace="{namespace}",dynamo_component="{name}"'
        serving = [w for w in pool.workers.values() if w.state in (WorkerState.READY, WorkerState.DRAINING)]
        waiting = _shares(pool, serving)
        for worker in serving:
            running, usage = _at_hand(worker)
            labels = f'{{{common},worker="{worker.worker}"}}'
            rows["vllm:num_requests_running"].append(f"{labels} {running}")
            rows["vllm:num_requests_waiting"].append(f"{labels} {waiting.get(worker.worker, 0)}")
            if usage is not None:
                rows["vllm:kv_cache_usage_perc"].append(f"{labels} {usage!r}")
        if ROUTER in waiting:
            rows["vllm:num_requests_waiting"].append(f'{{{common},worker="{ROUTER}"}} {waiting[ROUTER]}')
    for metric, lines in rows.items():
        yield f"# TYPE {metric} gauge\n"
        for line in lines:
            yield f"{metric}{line}\n"


def _shares(pool: Pool, serving: list[Worker]) -> dict[str, int]:
    """The router's queue, spread evenly over the ready workers, as a router that pushes would have done."""
    names = [w.worker for w in serving if w.state is WorkerState.READY] or [ROUTER]
    whole, rest = divmod(pool.waiting(), len(names))
    shares = {name: whole + (place < rest) for place, name in enumerate(names)}
    return shares if names != [ROUTER] or whole else {}


def _at_hand(worker: Worker) -> tuple[int, float | None]:
    """Running requests and, for workers with a KV cache, its use (0..1)."""
    if isinstance(worker, DecodeWorker):
        return worker.batch, min(worker.kv_usage, 1.0)
    if isinstance(worker, PrefillWorker):
        return worker.running, None
    raise TypeError(f"no metrics for {type(worker).__name__}")
