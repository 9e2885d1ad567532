"""Dynamo's planner flags and fields, accepted under their own names, and the settings that they became.

The table is the whole translation. ``DYNAMO_FLAGS.md`` is generated from it, and a test keeps them alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Paths = Mapping[str, Any]
"""Settings by dotted path. ``*`` is every deployment, ``@`` every site, ``pools.*`` every pool."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One name. ``became`` is for the page; ``to`` gives the settings, or raises ValueError for a value it refuses.

    Without ``to``, or if ``warned``, the name changes nothing and the user is warned, with ``became`` as the text.
    """

    name: str
    became: str
    to: Callable[[Any], Paths] | None = None
    aliases: tuple[str, ...] = ()
    switch: bool = False
    warned: bool = False


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


def _throughput_scaling(value: Any) -> Paths:
    return {} if _truth(value) else {"deployments.*.sizing": "load"}


def _workers_budget(value: Any) -> Paths:
    return {"sites.@.budget_watts": value, "sites.@.covers": "workers"}


def _min_gpus(value: Any) -> Paths:
    """Later releases write -1 for none."""
    return {} if str(value) == "-1" else {f"{POOL}.*.min_gpus": value}


def _optimization_target(value: Any) -> Paths:
    if value not in {"sla", "load"}:
        raise ValueError(f"{value!r} needs forward-pass metrics, which are not read; use sla or load")
    return {"deployments.*.sizing": value}


def _percent(name: str) -> Callable[[Any], Paths]:
    return _at(f"deployments.*.load.{name}", convert=lambda value: float(value) / 100.0)


def _refused(why: str) -> Callable[[Any], Paths]:
    def refuse(_: Any) -> Paths:
        raise ValueError(f"refused: {why}")

    return refuse


def _environment(value: Any) -> Paths:
    if value == "global-planner":
        raise ValueError("'global-planner' is not needed: one planner plans all `deployments`; leave it out")
    if value not in {"kubernetes", "virtual", "local"}:
        raise ValueError(f"{value!r} is none of kubernetes, virtual, local")
    return {"deployments.*.connector": value}


def _one_of(*values: str) -> Callable[[Any], Paths]:
    def check(value: Any) -> Paths:
        if value not in values:
            raise ValueError(f"{value!r} is none of {', '.join(values)}")
        return {}

    return check


POOL = "deployments.*.pools"
FLAGS: tuple[Flag, ...] = (
    Flag("namespace", "the name of the deployment", lambda value: {f"deployments.{value}": {}}),
    Flag("model_name", "`deployments.*.model`", _at("deployments.*.model"), ("served_model_name",)),
    Flag("ttft", "`deployments.*.ttft_ms`", _at("deployments.*.ttft_ms"), ("ttft_target", "ttft_ms")),
    Flag("itl", "`deployments.*.itl_ms`", _at("deployments.*.itl_ms"), ("itl_target", "itl_ms")),
    Flag(
        "isl",
        "`deployments.*.expected_isl_tokens`: until lengths were observed",
        _at("deployments.*.expected_isl_tokens"),
    ),
    Flag(
        "osl",
        "`deployments.*.expected_osl_tokens`: until lengths were observed",
        _at("deployments.*.expected_osl_tokens"),
    ),
    Flag(
        "adjustment_interval",
        "`interval_s`",
        _at("interval_s"),
        ("throughput_adjustment_interval", "throughput_adjustment_interval_seconds"),
    ),
    Flag(
        "load_adjustment_interval",
        "not needed: thresholds are compared every `interval_s`, and acknowledgements, budgets and timers are "
        "answered at once",
        None,
        ("load_adjustment_interval_seconds",),
    ),
    Flag("metric_pulling_interval", "`deployments.*.metrics.pull_s`", _at("deployments.*.metrics.pull_s")),
    Flag(
        "load_only", "`deployments.*.sizing: load`: thresholds alone, without profile and site", _load_only, switch=True
    ),
    Flag("max_gpu_budget", "`deployments.*.max_gpus`", _at("deployments.*.max_gpus")),
    Flag("min_gpu_budget", "`min_gpus` of every pool", _min_gpus),
    Flag("min_endpoint", "`min_replicas` of every pool", _at(f"{POOL}.*.min_replicas")),
    Flag(
        "min_prefill_replicas",
        "`pools.prefill.min_replicas`",
        _at(f"{POOL}.prefill.min_replicas"),
        ("min_endpoint_prefill", "prefill_min_endpoint"),
    ),
    Flag(
        "min_decode_replicas",
        "`pools.decode.min_replicas`",
        _at(f"{POOL}.decode.min_replicas"),
        ("min_endpoint_decode", "decode_min_endpoint"),
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
    Flag("prophet_window_size", "`prophet.window`", _at("prophet.window")),
    Flag("no_operation", "`deployments.*.mode: advisory`", _advisory, ("advisory",), switch=True),
    Flag("mode", "the pools: `disagg`, `prefill`, `decode` or `agg`", _mode),
    Flag("enable_load_scaling", "`deployments.*.sizing: sla+load`", _load_scaling, switch=True),
    Flag(
        "enable_throughput_scaling",
        "false: `deployments.*.sizing: load`; true is the default",
        _throughput_scaling,
        switch=True,
    ),
    Flag(
        "enable_power_awareness",
        "`power_aware`; false plans replicas without watts",
        _at("power_aware", convert=_truth),
        switch=True,
    ),
    Flag(
        "total_gpu_power_limit",
        "`sites.*.budget_watts` with `covers: workers`: it bounds the workers' GPUs and those reserved for them",
        _workers_budget,
    ),
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
    Flag(
        "environment",
        "`deployments.*.connector`: the connector of that name runs in the planner's process and carries decisions out",
        _environment,
    ),
    Flag(
        "backend",
        "not needed: engines are recognised by the names of their metrics",
        _one_of("vllm", "sglang", "trtllm", "mocker"),
        warned=True,
    ),
    Flag("log_dir", "`tensorboard_dir`", _at("tensorboard_dir", convert=str)),
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
    Flag(
        "throughput_metrics_source",
        "not needed: whatever of frontend, router and engine is exported is read",
        _one_of("frontend", "router"),
        warned=True,
    ),
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
    Flag("optimization_target", "`deployments.*.sizing`: `sla` or `load`; others are refused", _optimization_target),
    Flag("decode_scale_up_kv_rate", "`deployments.*.load.decode_kv_up`, from percent", _percent("decode_kv_up")),
    Flag("decode_scale_down_kv_rate", "`deployments.*.load.decode_kv_down`, from percent", _percent("decode_kv_down")),
    Flag(
        "prefill_scale_up_queue_tokens",
        "refused: queues are compared in requests, `deployments.*.load.prefill_queue_up`",
        _refused("queues are compared in requests; use prefill-queue-scale-up-threshold"),
    ),
    Flag(
        "prefill_scale_down_queue_tokens",
        "refused: queues are compared in requests, `deployments.*.load.prefill_queue_down`",
        _refused("queues are compared in requests; use prefill-queue-scale-down-threshold"),
    ),
    Flag(
        "metric_pulling_prometheus_token",
        "refused: a secret belongs in a file, `prometheus.bearer_token_file`",
        _refused("a secret belongs in a file; use metric-pulling-prometheus-token-file"),
    ),
    Flag(
        "metric_pulling_prometheus_token_file",
        "`prometheus.bearer_token_file`",
        _at("prometheus.bearer_token_file", convert=str),
    ),
    Flag(
        "metric_pulling_prometheus_ssl_verify",
        "`prometheus.verify_tls`",
        _at("prometheus.verify_tls", convert=_truth),
        switch=True,
    ),
    Flag("metric_pulling_prometheus_ca_bundle", "`prometheus.ca_file`", _at("prometheus.ca_file", convert=str)),
    Flag("metric_pulling_prometheus_extra_query_params", "`prometheus.params`", _at("prometheus.params")),
    Flag("metric_pulling_prometheus_request_timeout_seconds", "`prometheus.timeout_s`", _at("prometheus.timeout_s")),
    Flag("live_dashboard_port", "not needed: `health.port` serves `/metrics` and `/status`"),
    Flag("control_api_port", "not needed: `wattscale budget`, `deployment` and `node` steer over the bus"),
    Flag("global_planner_namespace", "not needed: one planner plans all `deployments`, under their `sites`"),
    Flag("pre_deployment_sweeping_mode", "not needed: name a measured profile, `deployments.*.profile`"),
    Flag("aic_interpolation", "not needed: name a profile, `deployments.*.profile`"),
    Flag("ais_perf_model", "not needed: name a profile, `deployments.*.profile`"),
    Flag("speculative_nextn", "not needed: the accept length is read from metrics"),
    Flag(
        "max_num_fpm_samples",
        "not needed: no forward-pass metrics are read; the profile is corrected by TTFT and ITL",
    ),
    Flag("fpm_sample_bucket_size", "not needed: no forward-pass metrics are read"),
    Flag("load_min_observations", "not needed: no forward-pass metrics are read"),
    Flag("load_scaling_down_sensitivity", "not needed: use `deployments.*.load` and `pools.*.behavior`"),
    Flag("report_interval_hours", "not needed: plan records are on the bus; use `wattscale replay` and `explain`"),
    Flag("report_output_dir", "not needed: plan records are on the bus; use `wattscale replay` and `explain`"),
    Flag("report_filename", "not needed: plan records are on the bus; use `wattscale replay` and `explain`"),
    Flag("report_write_gzip_log", "not needed: plan records are on the bus; use `wattscale replay` and `explain`"),
    Flag("scheduling", "not needed: there are no plugins; metrics are read once an interval, `interval_s`"),
    Flag("plugin_registration", "not needed: there are no plugins; any client of the bus may take part"),
)
BY_NAME: Mapping[str, Flag] = {name: flag for flag in FLAGS for name in (flag.name, *flag.aliases)}


SECTION = "planner"
"""Of a configuration file: its keys are the same names. A graph's flags have it in front: ``--Planner.ttft``."""


def normal(name: str) -> str:
    """The name of a flag or key as the table writes it; accepts dashes, and a request's ``plannerMinEndpoint``."""
    plain = name.lstrip("-").replace("-", "_")
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain).lower()
    return words if words in BY_NAME else words.removeprefix(f"{SECTION}_").removeprefix(f"{SECTION}.")


def page() -> str:
    """The page that lists them all."""
    lines = [
        "# Dynamo's planner settings",
        "",
        "Generated from `planner/runtime/config/dynamo_flags.py`. Each name is taken as a flag (`--ttft 200`, dashes",
        "or underscores), as a key at the top of the configuration file (`ttft: 200`), in its section `Planner:`,",
        "there also as a request writes it (`plannerMinEndpoint: 2`), and as a graph's flag (`--Planner.ttft=200`).",
        "A name that is not needed is warned about when the planner starts.",
        "",
        "| Dynamo | became |",
        "| --- | --- |",
    ]
    for flag in FLAGS:
        names = ", ".join(f"`{name}`" for name in (flag.name, *flag.aliases))
        lines.append(f"| {names} | {flag.became} |")
    return "\n".join(lines) + "\n"
