"""Runs inside the referee's environment: one job in (JSON on stdin), one result out (JSON in the named file).

Owns the call of Dynamo's offline replay. Everything that decides is handed to it as a policy object.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
REPOSITORY = HERE.parents[3]
ENGINE_LIMITS = ("block_size", "max_num_seqs", "max_num_batched_tokens", "max_model_len")


def main() -> int:
    os.environ.setdefault("DYN_LOG", "error")
    job = json.load(sys.stdin)
    sys.path.insert(0, str(REPOSITORY))
    from tests.benchmarks.dynamo_replay_support import standins

    standins.install()
    result = run(job)
    Path(job["result"]).write_text(json.dumps(result))
    return 0


def run(job: Mapping[str, Any]) -> dict[str, Any]:
    """Replay one trace under one policy and score it."""
    from dynamo._core import run_mocker_trace_replay

    from tests.benchmarks.dynamo_replay_support import ours, scores

    table = _timing(Path(job["profile"]), Path(job["work"]))
    engines = {role: _engine(job, role, table) for role in ("prefill", "decode")}
    policy = _policy(job, engines)
    started = time.perf_counter()
    native = run_mocker_trace_replay(
        [job["trace"]],
        prefill_engine_args=engines["prefill"],
        decode_engine_args=engines["decode"],
        num_prefill_workers=job["start"]["prefill"],
        num_decode_workers=job["start"]["decode"],
        replay_mode="offline",
        router_mode=job["router"],
        trace_block_size=512,
        trace_format="mooncake",
        capture_per_request=True,
        scaling_policy=policy,
    )
    wall_s = time.perf_counter() - started
    alone = _alone(table)
    scored = scores.score(
        native.per_request,
        native.summary,
        job["ttft_ms"],
        job["itl_ms"],
        alone,
        getattr(policy, "growing", ()),
        ours.gpus_per_engine(Path(job["profile"])),
    )
    scored |= {"wall_s": wall_s, "changes": getattr(policy, "changes", 0)}
    inner = getattr(policy, "inner", None)
    if inner is not None and hasattr(inner, "step_s"):
        scored["step_us"] = 1e6 * inner.step_s / inner.ticks
        if job.get("log"):
            scored["log"] = inner.log
    return scored


def _engine(job: Mapping[str, Any], role: str, table: Path) -> dict[str, Any]:
    limits = job["limits"]
    blocks = limits["max_kv_tokens"] // limits["block_size"]
    engine = {
        "worker_type": role,
        "timing_model": {"type": "external", "provider": "dynamo_profile", "config": {"path": str(table)}},
        "num_gpu_blocks": blocks,
        **{name: limits[name] for name in ENGINE_LIMITS},
    }
    return {"engine": engine, **({"startup_time": job["startup_s"]} if job["startup_s"] else {})}


def _timing(profile: Path, work: Path) -> Path:
    """The profile as Dynamo's own converter turns it into the simulator's tables."""
    from dynamo.mocker.utils.planner_profiler_perf_data_converter import convert_profile_results_to_npz

    table = work / f"{profile.name}.npz"
    if not table.exists():
        half = table.with_suffix(f".{os.getpid()}.npz")
        convert_profile_results_to_npz(profile, half)
        half.replace(table)
    return table


def _alone(table: Path) -> Any:
    import numpy as np

    data = np.load(table)
    lengths, times = data["prefill_isl"], data["prefill_ttft_ms"]
    slope = (times[-1] - times[0]) / (lengths[-1] - lengths[0])

    def alone_ms(isl: int) -> float:
        return float(np.interp(isl, lengths, times) + max(0.0, isl - lengths[-1]) * slope)

    return alone_ms


def _policy(job: Mapping[str, Any], engines: Mapping[str, Any]) -> Any:
    policy = job["policy"]
    if policy["kind"] == "static":
        return None
    if policy["kind"] == "dynamo":
        return Watched(_dynamo(job, engines))
    from tests.benchmarks.dynamo_replay_support import ours

    config = ours.settings(
        ours.profile(Path(job["profile"]), job["limits"]),
        job["ttft_ms"],
        job["itl_ms"],
        job["startup_s"],
        policy.get("settings", {}),
    )
    return Watched(ours.Ours(config))


def _dynamo(job: Mapping[str, Any], engines: Mapping[str, Any]) -> Any:
    """Dynamo's planner as its own replay composes it, taught the same profile as ours."""
    import logging

    from dynamo.planner.monitoring.perf_metrics import _convert_decode_profiling, _convert_prefill_profiling
    from dynamo.replay.planner import prepare_planner_replay

    logging.disable(logging.WARNING)
    adapter = prepare_planner_replay(
        extra_engine_args=None,
        prefill_engine_args=engines["prefill"],
        decode_engine_args=engines["decode"],
        planner_config_arg=json.dumps(job["policy"]["config"]),
        capture_details=False,
    )
    if not adapter._is_easy_mode():
        adapter.install_benchmark_fpms(
            prefill_fpms=_convert_prefill_profiling(job["profile"]),
            decode_fpms=_convert_decode_profiling(job["profile"]),
        )
    return adapter


class Watched:
    """Any policy, with its changes counted and the spans in which workers were starting noted."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.changes = 0
        self.growing: list[tuple[float, float]] = []
        self._targets: tuple[int, int] | None = None
        self._since: float | None = None

    def start(self) -> None:
        self.inner.start()

    def initial_tick_ms(self) -> float:
        return float(self.inner.initial_tick_ms())

    def on_tick(self, result: dict[str, Any]) -> dict[str, Any]:
        now = result["now_ms"]
        counts = (result["non_draining_prefill_count"], result["non_draining_decode_count"])
        starting = result["starting_prefill_count"] + result["starting_decode_count"]
        if starting and self._since is None:
            self._since = now
        elif not starting and self._since is not None:
            self.growing.append((self._since, now))
            self._since = None
        answer: dict[str, Any] = self.inner.on_tick(result)
        wanted = (answer["target_prefill"] or counts[0], answer["target_decode"] or counts[1])
        self.changes += sum(a != b for a, b in zip(wanted, counts, strict=True))
        return answer


if __name__ == "__main__":
    raise SystemExit(main())
