"""From metrics to readings: histograms, sources, selectors, PromQL text, replicas."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.adapters.metrics import promql
from planner.adapters.metrics.assemble import assemble, traffic_source
from planner.adapters.metrics.engine_metrics import (
    DYNAMO,
    SGLANG,
    SOURCES,
    TRAFFIC,
    TRTLLM,
    VLLM,
    EngineMetricKind,
    Quantity,
    Source,
)
from planner.adapters.metrics.exposition import PageError, parse_page
from planner.adapters.metrics.histogram import IntervalHistogram, histogram
from planner.adapters.metrics.metric_table import MetricTable
from planner.adapters.metrics.replica_counts import holders, with_replicas
from planner.adapters.metrics.series_selector import PoolSelector, SeriesSelector
from planner.adapters.metrics.simulated_cluster import SIMULATED, WORKERS
from planner.adapters.metrics.snapshot import GaugeSample, Snapshot
from planner.adapters.metrics.snapshot_observer import Staleness
from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId
from planner.domain.observation import DeploymentObservation, GpuObservation, NodeObservation, PoolObservation
from planner.domain.pool import Replicas, Role
from planner.domain.reading import Missing, MissingReason, Sample

NAME = DeploymentId("prod-chat")
PREFILL, DECODE = PoolId("prefill"), PoolId("decode")
TARGET = SeriesSelector(NAME, pools={PREFILL: PoolSelector(Role.PREFILL), DECODE: PoolSelector(Role.DECODE)})
BOUNDS = (1.0, 2.0, 4.0, 8.0, math.inf)


def of(values: list[float]) -> IntervalHistogram:
    counts = [sum(low < value <= high for value in values) for low, high in zip((0.0, *BOUNDS), BOUNDS, strict=False)]
    return histogram(len(values), sum(values), dict(zip(BOUNDS, accumulate(counts), strict=True)))


@given(st.lists(st.floats(0.01, 7.9), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    found = of(values).quantile(share)
    assert found is not None
    true = sorted(values)[math.ceil(share * len(values)) - 1]
    bucket = next(high for high in BOUNDS if true <= high)
    low = next((low for low, high in zip((0.0, *BOUNDS), BOUNDS, strict=False) if high == bucket), 0.0)
    assert low <= found <= bucket


def test_the_spread_of_an_exponential_is_near_one_with_fine_buckets() -> None:
    values = np.random.default_rng(1).exponential(1000.0, 50_000)
    bounds = [*np.arange(100.0, 8000.0, 100.0), math.inf]
    cumulative = {float(bound): float((values <= bound).sum()) for bound in bounds}
    found = histogram(len(values), float(values.sum()), cumulative).cv2()
    assert found == pytest.approx(1.0, abs=0.05)


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=100))
def test_spread_is_never_negative_and_the_mean_is_exact(values: list[float]) -> None:
    found = of(values)
    assert found.mean == pytest.approx(sum(values) / len(values))
    spread = found.cv2()
    assert spread is None or spread >= 0


def test_without_observations_there_is_no_number() -> None:
    empty = of([])
    assert (empty.mean, empty.quantile(0.9), empty.cv2()) == (None, None, None)


def test_histograms_with_other_buckets_keep_their_mean_and_give_up_their_shape() -> None:
    both = of([1.0, 3.0]).plus(IntervalHistogram(2, 6.0, ((5.0, 2.0), (math.inf, 2.0))))
    assert both.mean == 2.5
    assert both.quantile(0.5) is None


def readout(**metrics: Any) -> Snapshot:
    return Snapshot(30.0, {name: Sample(value) for name, value in metrics.items()})


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_each_source_is_found_by_its_own_names(source: Source) -> None:
    metric = source.metrics[Quantity.REQUESTS][0]
    found = Snapshot(30.0, {metric.name: Sample(60.0)})
    assert traffic_source(found) is source
    assert assemble(found, TARGET).requests == Sample(60.0)


def test_a_frontend_is_believed_before_its_engines() -> None:
    """Engines of a disaggregated pair each see half of every request: theirs would count double."""
    found = Snapshot(30.0, {"dynamo_frontend_requests_total": Sample(10.0), "vllm:request_success_total": Sample(20.0)})
    assert assemble(found, TARGET).requests == Sample(10.0)


def test_arrivals_are_believed_before_completions() -> None:
    names = [metric.name for metric in DYNAMO.metrics[Quantity.REQUESTS]]
    assert names == ["dynamo_frontend_requests_started_total", "dynamo_frontend_requests_total"]
    found = Snapshot(
        30.0,
        {names[0]: Missing(MissingReason.COUNTER_RESET), names[1]: Sample(9.0)},
    )
    assert assemble(found, TARGET).requests == Sample(9.0)


def test_names_are_used_once_and_histograms_are_listed_without_their_suffix() -> None:
    seen: set[str] = set()
    for source in SOURCES:
        for metrics in source.metrics.values():
            for metric in metrics:
                assert metric.name not in seen, metric.name
                seen.add(metric.name)
                if metric.kind is EngineMetricKind.HISTOGRAM:
                    assert not metric.name.endswith(("_sum", "_count", "_bucket"))
                if metric.kind in {EngineMetricKind.COUNTER, EngineMetricKind.RATIO}:
                    assert metric.name.endswith(("_total", "_sum"))


def test_hit_rate_and_accept_length_come_from_engines_and_must_be_possible() -> None:
    found = readout(
        **{
            "vllm:prefix_cache_hits_total": 30.0,
            "vllm:prefix_cache_queries_total": 100.0,
            "vllm:spec_decode_num_accepted_tokens_total": 150.0,
            "vllm:spec_decode_num_drafts_total": 100.0,
        }
    )
    seen = assemble(found, TARGET)
    assert seen.kv_hit_rate == Sample(0.3)
    assert seen.accept_length == Sample(2.5)
    odd = readout(**{"vllm:prefix_cache_hits_total": 200.0, "vllm:prefix_cache_queries_total": 100.0})
    assert assemble(odd, TARGET).kv_hit_rate == Missing(MissingReason.NOT_A_NUMBER)


@pytest.mark.parametrize(
    ("source", "waiting", "usage"),
    [
        (VLLM, "vllm:num_requests_waiting", "vllm:gpu_cache_usage_perc"),
        (SGLANG, "sglang:num_queue_reqs", "sglang:token_usage"),
        (TRTLLM, "trtllm_num_requests_waiting", "trtllm_kv_cache_utilization"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_workers_of_every_engine_are_counted(source: Source, waiting: str, usage: str) -> None:
    """Two data-parallel ranks of one worker are one worker: queues add up, KV use is their mean."""
    labels = {"dynamo_component": "backend", "pod": "d0"}
    ranks = tuple(GaugeSample({**labels, "engine": str(rank)}, 0.2 + 0.4 * rank) for rank in (0, 1))
    queues = tuple(GaugeSample(sample.labels, 2.0) for sample in ranks)
    seen = assemble(Snapshot(30.0, gauges={waiting: queues, usage: ranks}), TARGET)
    decode = seen.pools[DECODE]
    assert decode.replicas == Replicas(ready=1)
    assert decode.queued_requests == Sample(4.0)
    assert isinstance(decode.kv_usage, Sample)
    assert decode.kv_usage.value == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("waiting", "usage"),
    [
        ("vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"),
        ("sglang:num_queue_reqs", "sglang:token_usage"),
        ("trtllm_num_requests_waiting", "trtllm_kv_cache_utilization"),
    ],
)
def test_the_place_of_a_source_in_the_table_hides_no_worker(waiting: str, usage: str) -> None:
    """Nor does it make a frontend's gauge a worker's."""
    table = MetricTable(tuple(reversed(SOURCES)))
    labels = {"dynamo_component": "backend", "pod": "d0"}
    of_one = {waiting: (GaugeSample(labels, 4.0),), usage: (GaugeSample(labels, 0.5),)}
    decode = assemble(Snapshot(30.0, gauges=of_one), TARGET, table).pools[DECODE]
    assert (decode.queued_requests, decode.kv_usage) == (Sample(4.0), Sample(0.5))
    frontend = {"dynamo_frontend_queued_requests": (GaugeSample(labels, 4.0),)}
    assert assemble(Snapshot(30.0, gauges=frontend), TARGET, table).pools == {}


def test_the_simulated_clusters_own_count_is_complete() -> None:
    gauges = {
        WORKERS: tuple(
            GaugeSample({"pool": "decode", "state": state}, value)
            for state, value in (("ready", 3.0), ("starting", 1.0), ("terminating", 2.0))
        )
    }
    pool = assemble(Snapshot(30.0, gauges=gauges), TARGET, SIMULATED).pools[DECODE]
    assert pool.replicas == Replicas(ready=3, starting=1, terminating=2)
    assert pool.complete


def test_what_is_not_exported_says_so_and_a_failure_says_why() -> None:
    assert assemble(Snapshot(30.0), TARGET).requests == Missing(MissingReason.NOT_EXPORTED)
    failed = Snapshot(30.0, failure=Missing(MissingReason.UNREACHABLE))
    assert assemble(failed, TARGET).ttft_ms == Missing(MissingReason.UNREACHABLE)


def test_ages_count_from_the_last_sample_of_each_quantity() -> None:
    ages = Staleness()
    good = DeploymentObservation(30.0, requests=Sample(1.0))
    ages.stamp(good, 100.0)
    gone = DeploymentObservation(30.0, requests=Missing(MissingReason.STALE), isl_tokens=Missing(MissingReason.STALE))
    stamped = ages.stamp(gone, 130.0)
    assert stamped.requests == Missing(MissingReason.STALE, 30.0)
    assert stamped.isl_tokens == Missing(MissingReason.STALE, 0.0)


@given(st.text(max_size=200))
def test_any_text_is_a_page_or_a_page_error(text: str) -> None:
    try:
        page = parse_page(text, TARGET)
    except PageError:
        return
    assert page.cumulative == {}


def test_promql_cannot_be_broken_out_of() -> None:
    nasty = SeriesSelector(NAME, model='a"}) or vector(1) #', namespace="prod-chat", matchers={"team": 'x"y\\z'})
    matchers = promql.selector(nasty, DYNAMO)
    assert 'dynamo_namespace=~"(?i)prod[-_]chat"' in matchers
    assert 'team="x\\"y\\\\z"' in matchers
    text = promql.increase("dynamo_frontend_requests_total", matchers, 30.0)
    outside = [part for position, part in enumerate(text.replace('\\"', "").split('"')) if position % 2 == 0]
    assert "vector" not in "".join(outside)


def test_every_query_names_its_window_in_milliseconds() -> None:
    for quantity in TRAFFIC:
        for metric in DYNAMO.metrics.get(quantity, ()):
            for query in promql.increases_of(metric, "", 12.5).values():
                assert "[12500ms]" in query


def gpu(name: str, pool: PoolId, worker: str, *, terminating: bool = False) -> GpuObservation:
    return GpuObservation(
        GpuId(name), 0, 0, 0, 700, 200, 700, deployment=NAME, pool=pool, worker=worker, terminating=terminating
    )


def test_replicas_come_from_whoever_knows_them() -> None:
    gpus = [
        gpu("a", DECODE, "d0"),
        gpu("b", DECODE, "d0"),
        gpu("c", DECODE, "d1"),
        gpu("d", DECODE, "d2", terminating=True),
        gpu("e", PREFILL, "p0"),
    ]
    held = holders([NodeObservation(NodeId("n"), {each.gpu: each for each in gpus})])
    served = PoolObservation(Replicas(ready=1), queued_requests=Sample(3.0))
    seen = DeploymentObservation(30.0, pools={DECODE: served})
    pools = with_replicas(seen, NAME, [PREFILL, DECODE], held, {}).pools
    assert pools[DECODE].replicas == Replicas(ready=1, starting=1, terminating=1)
    assert pools[DECODE].queued_requests == Sample(3.0)
    assert pools[PREFILL].replicas == Replicas(ready=1)
    acked = with_replicas(DeploymentObservation(30.0), NAME, [PREFILL, DECODE], {}, {"decode": 4}).pools
    assert acked == {DECODE: PoolObservation(Replicas(ready=4))}
    complete = PoolObservation(Replicas(ready=7), complete=True)
    kept = with_replicas(DeploymentObservation(30.0, pools={DECODE: complete}), NAME, [DECODE], held, {"decode": 1})
    assert kept.pools[DECODE] is complete
