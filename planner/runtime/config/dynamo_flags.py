"""Dynamo's planner flags and fields, accepted under their own names: what each became here.

The table is the whole translation. ``DYNAMO_FLAGS.md`` is generated from it, and a test keeps them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Paths = Mapping[str, Any]
"""Settings by dotted path. ``*`` is every deployment, ``@`` every site, ``pools.*`` every pool."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One name. ``became`` is for the page; ``to`` gives the settings; without ``to`` the name is accepted and idle."""

    name: str
    became: str
    to: Callable[[Any], Paths] | None = None
    aliases: tuple[str, ...] = ()
    switch: bool = False


def _at(*paths: str, convert: Callable[[Any], Any] = lambda value: value) -> Callable[[Any], Paths]:
    return lambda value: {path: convert(value) for path in paths}


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"true", "1", "yes", "on", ""}:
        return True
    if text in {"false", "0", "no", "off"}:
        return False
    raise ValueError(f"{value!r} is neither true nor false")


def _mode(value: Any) -> Paths:
    pools: Mapping[Any, Mapping[str, Any]] = {
        "disagg": {"prefill": {}, "decode": {}},
        "prefill": {"prefill": {}},
        "decode": {"decode": {}},
        "agg": {"aggregated": {}},
    }
    if value not in pools:
        raise ValueError(f"{value!r} is none of {', '.join(pools)}")
    return {"deployments.*.pools": pools[value]}


def _advisory(value: Any) -> Paths:
    return {"deployments.*.mode": "advisory"} if _truth(value) else {}


def _no_correction(value: Any) -> Paths:
    return {"deployments.*.correction": not _truth(value)}


def _log1p(value: Any) -> Paths:
    return {"deployments.*.predictor+": "+log1p"} if _truth(value) else {}


def _load_scaling(value: Any) -> Paths:
    return {"deployments.*.sizing": "sla+load"} if _truth(value) else {}


def _load_only(value: Any) -> Paths:
    return {"deployments.*.sizing": "load"} if _truth(value) else {}


POOL = "deployments.*.pools"
FLAGS: tuple[Flag, ...] = (
    Flag("namespace", "the name of the deployment", lambda value: {f"deployments.{value}": {}}),
    Flag("model_name", "`deployments.*.model`", _at("deployments.*.model"), ("served_model_name",)),
    Flag("ttft", "`deployments.*.ttft_ms`", _at("deployments.*.ttft_ms"), ("ttft_target", "ttft_ms")),
    Flag("itl", "`deployments.*.itl_ms`", _at("deployments.*.itl_ms"), ("itl_target", "itl_ms")),
    Flag("isl", "not needed: input lengths are read from metrics and forecast"),
    Flag("osl", "not needed: output lengths are read from metrics and forecast"),
    Flag(
        "adjustment_interval",
        "`interval_s`",
        _at("interval_s"),
        ("throughput_adjustment_interval", "throughput_adjustment_interval_seconds"),
    ),
    Flag(
        "load_adjustment_interval",
        "not needed: acknowledgements, budgets and timers are answered at once, not at an interval",
        None,
        ("load_adjustment_interval_seconds",),
    ),
    Flag("metric_pulling_interval", "`deployments.*.metrics.pull_s`", _at("deployments.*.metrics.pull_s")),
    Flag(
        "load_only", "`deployments.*.sizing: load`: thresholds alone, without profile and site", _load_only, switch=True
    ),
    Flag("max_gpu_budget", "`deployments.*.max_gpus`", _at("deployments.*.max_gpus")),
    Flag("min_gpu_budget", "not needed: floors are `min_replicas` of each pool"),
    Flag("min_endpoint", "`min_replicas` of every pool", _at(f"{POOL}.*.min_replicas")),
    Flag(
        "min_prefill_replicas",
        "`pools.prefill.min_replicas`",
        _at(f"{POOL}.prefill.min_replicas"),
        ("min_endpoint_prefill",),
    ),
    Flag(
        "min_decode_replicas",
        "`pools.decode.min_replicas`",
        _at(f"{POOL}.decode.min_replicas"),
        ("min_endpoint_decode",),
    ),
    Flag("max_prefill_replicas", "`pools.prefill.max_replicas`", _at(f"{POOL}.prefill.max_replicas")),
    Flag("max_decode_replicas", "`pools.decode.max_replicas`", _at(f"{POOL}.decode.max_replicas")),
    Flag("prefill_engine_num_gpu", "`pools.prefill.gpus_per_replica`", _at(f"{POOL}.prefill.gpus_per_replica")),
    Flag("decode_engine_num_gpu", "`pools.decode.gpus_per_replica`", _at(f"{POOL}.decode.gpus_per_replica")),
    Flag(
        "max_throughput_scaling_replicas",
        "`max_step` of every pool",
        _at(f"{POOL}.*.max_step"),
    ),
    Flag("profile_results_dir", "`deployments.*.profile`", _at("deployments.*.profile")),
    Flag("load_predictor", "`deployments.*.predictor`", _at("deployments.*.predictor")),
    Flag("load_predictor_log1p", "`+log1p` after the predictor's name", _log1p, switch=True),
    Flag("load_predictor_warmup_trace", "`deployments.*.history`", _at("deployments.*.history")),
    Flag("kalman_q_level", "`kalman.q_level`", _at("kalman.q_level")),
    Flag("kalman_q_trend", "`kalman.q_trend`", _at("kalman.q_trend")),
    Flag("kalman_r", "`kalman.r`", _at("kalman.r")),
    Flag("kalman_min_points", "`kalman.min_points`", _at("kalman.min_points")),
    Flag("prophet_window_size", "not needed: Prophet is fitted to the newest 50 observations, Dynamo's default"),
    Flag("no_operation", "`deployments.*.mode: advisory`", _advisory, ("advisory",), switch=True),
    Flag("mode", "the pools: `disagg`, `prefill`, `decode` or `agg`", _mode),
    Flag("enable_load_scaling", "`deployments.*.sizing: sla+load`", _load_scaling, switch=True),
    Flag(
        "enable_throughput_scaling",
        "not needed: `deployments.*.sizing` sets how replicas are sized",
        switch=True,
    ),
    Flag(
        "enable_power_awareness",
        "not needed: power is always part of the decision; without a `budget_watts` nothing starts",
        switch=True,
    ),
    Flag("total_gpu_power_limit", "`sites.*.budget_watts`", _at("sites.@.budget_watts")),
    Flag(
        "prefill_engine_gpu_power_limit",
        "`pools.prefill.max_cap_watts`: an upper bound; below it the planner chooses",
        _at(f"{POOL}.prefill.max_cap_watts"),
    ),
    Flag(
        "decode_engine_gpu_power_limit",
        "`pools.decode.max_cap_watts`: an upper bound; below it the planner chooses",
        _at(f"{POOL}.decode.max_cap_watts"),
    ),
    Flag("environment", "not needed: the consumer of decisions is a process of its own"),
    Flag("backend", "not needed: engines are recognised by the names of their metrics"),
    Flag("log_dir", "not needed: logs go to standard error, plans to the bus"),
    Flag(
        "metric_reporting_prometheus_port",
        "`health.port`",
        _at("health.port"),
        ("prometheus_port", "metric_pulling_prometheus_port"),
    ),
    Flag(
        "prometheus_endpoint",
        "`prometheus.url`; also taken from the environment variable PROMETHEUS_ENDPOINT",
        _at("prometheus.url"),
        ("metric_pulling_prometheus_endpoint",),
    ),
    Flag("throughput_metrics_source", "not needed: whatever of frontend, router and engine is exported is read"),
    Flag("no_correction", "`deployments.*.correction: false`", _no_correction, switch=True),
    Flag(
        "prefill_queue_scale_up_threshold",
        "`deployments.*.load.prefill_queue_up`",
        _at("deployments.*.load.prefill_queue_up"),
    ),
    Flag(
        "prefill_queue_scale_down_threshold",
        "`deployments.*.load.prefill_queue_down`",
        _at("deployments.*.load.prefill_queue_down"),
    ),
    Flag(
        "decode_kv_scale_up_threshold",
        "`deployments.*.load.decode_kv_up`",
        _at("deployments.*.load.decode_kv_up"),
    ),
    Flag(
        "decode_kv_scale_down_threshold",
        "`deployments.*.load.decode_kv_down`",
        _at("deployments.*.load.decode_kv_down"),
    ),
    Flag("max_wait_time_secs", "`deployments.*.scaling_timeout_s`", _at("deployments.*.scaling_timeout_s")),
)
BY_NAME: Mapping[str, Flag] = {name: flag for flag in FLAGS for name in (flag.name, *flag.aliases)}


def normal(name: str) -> str:
    """A flag's or key's name as the table writes it."""
    return name.lstrip("-").replace("-", "_").lower()


def page() -> str:
    """The page that lists them all."""
    lines = [
        "# Dynamo's planner settings",
        "",
        "Generated from `planner/runtime/config/dynamo_flags.py`. Each name is taken as a flag (`--ttft 200`, dashes",
        "or underscores) and as a key at the top of the configuration file (`ttft: 200`).",
        "",
        "| Dynamo | became |",
        "| --- | --- |",
    ]
    for flag in FLAGS:
        names = ", ".join(f"`{name}`" for name in (flag.name, *flag.aliases))
        lines.append(f"| {names} | {flag.became} |")
    return "\n".join(lines) + "\n"
