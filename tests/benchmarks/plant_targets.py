"""Our planner against its targets in our own plant, with the same settings on every trace and profile.

For each scenario: the smallest static fleet that is good enough (it knows the future), ours at a setting of the quality
knob that is as good, the least GPU-hours that a planner who knows the trace needs for the share of ours, and ours
against uniform caps under 70 % of the static fleet's nameplate watts. Run from anywhere:

    python tests/benchmarks/plant_targets.py [--scenario azure-x4] [--processes 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))

from planner.adapters.profiles import load_profile  # noqa: E402
from planner.adapters.traces import read_trace  # noqa: E402
from planner.sim.cluster.plant import ClusterSpec  # noqa: E402
from planner.sim.evaluation.regret import regret  # noqa: E402
from planner.sim.evaluation.run_batch import Result, RunJob, run_jobs  # noqa: E402
from planner.sim.evaluation.scores import Scores  # noqa: E402
from planner.sim.policies.ours import OursSettings  # noqa: E402
from planner.sim.workload.scenario import BudgetSteps, Scenario, card_of, disaggregated  # noqa: E402

SHARED = REPOSITORY.parent / "shared" / "data"
GOOD_SHARE = 0.97
QUANTILES = (0.95, 0.98, 0.99)
BUDGET_SHARE = 0.7
STARTUP_S = 60.0
DECODE_MISSES = frozenset({"decode_queue", "batch", "model"})


@dataclass(frozen=True, slots=True)
class TargetCase:
    """One load on one engine. ``until_s`` in the trace's own time."""

    name: str
    trace: str
    profile: str
    ttft_ms: float
    itl_ms: float
    rate: float = 1.0
    until_s: float | None = None
    start: tuple[int, int] = (5, 2)
    truth: float = 1.0
    gpus: int = 16


QWEN = "qwen3-32b_h200_vllm_tp1p_tp1d"
AZURE, SERVEGEN = "azure2023_conv.csv.gz", "servegen_m_large_36h_x0.02.csv.gz"
MOONCAKE = "mooncake_fast25_conversation.jsonl.gz"
CASES = (
    TargetCase("azure-x4", AZURE, QWEN, 1000.0, 40.0, rate=4.0),
    TargetCase("azure-x4-slow-engines", AZURE, QWEN, 1000.0, 60.0, rate=4.0, start=(8, 3), truth=0.7, gpus=24),
    TargetCase("azure-x8-8b", AZURE, "llama3.1-8b_h200_vllm_tp1p_tp1d", 500.0, 30.0, rate=8.0, start=(4, 2)),
    TargetCase("mooncake-8b", MOONCAKE, "dynamo_h200_8b_fp8_tp1p_tp1d", 2000.0, 50.0, start=(3, 1)),
    TargetCase("servegen-x4-24h", SERVEGEN, QWEN, 1000.0, 40.0, rate=4.0, until_s=24 * 3600.0),
    TargetCase("servegen-36h", SERVEGEN, QWEN, 1000.0, 40.0, start=(2, 1), gpus=8),
)


class TargetBench:
    """Runs on one case, each made once."""

    def __init__(self, case: TargetCase, processes: int) -> None:
        profile = load_profile(SHARED / "profiles" / case.profile)
        trace = read_trace(SHARED / "traces" / case.trace)
        trace = trace if case.until_s is None else trace.between(0.0, case.until_s)
        pools = disaggregated(profile, "h200", startup_s=STARTUP_S, start=case.start)
        pools = (replace(pools[0], prefix_cache=bool(trace.hash_ids)), pools[1])
        self.case = case
        self.scenario = Scenario(
            trace.at_rate(case.rate),
            profile,
            ClusterSpec(1, case.gpus, card_of("h200")),
            pools,
            case.ttft_ms,
            case.itl_ms,
            truth=case.truth,
        )
        self._processes = processes

    def run(self, names: Iterable[str], quantile: float = 0.95, budget: BudgetSteps | None = None) -> dict[str, Scores]:
        """Scores by policy."""
        jobs = [RunJob(name, 0, name, budget, OursSettings(ttft_quantile=quantile)) for name in names]
        found: list[Result] = list(run_jobs(self.scenario, jobs, self._processes, lambda number, share: None))
        for result in found:
            s = result.scores
            told = f"{s.good_share:.2%} good, {s.gpu_hours:.2f} GPU-h, {s.wall_s:.0f} s"
            print(f"{self.case.name}: {s.policy} q={quantile:g}: {told}", file=sys.stderr, flush=True)
        return {result.job.policy: result.scores for result in found}

    def clairvoyant(self, ours: Scores) -> tuple[Scores, float]:
        """The plan for the share of ours, run in the plant, and the GPU-hours of ours over the bound's."""
        job = RunJob(f"clairvoyant:{ours.good_share:.4f}", 0, "clairvoyant", None, OursSettings())
        (result,) = run_jobs(self.scenario, [job], 1, lambda number, share: None)
        found = regret(ours, result.bound, budget=False) if result.bound is not None else None
        return result.scores, found.times if found is not None else float("nan")

    def smallest_static(self) -> tuple[tuple[int, int], Scores]:
        """Climbs by the larger kind of misses until the fleet is good enough."""
        prefill, decode = max(1, self.case.start[0] - 1), self.case.start[1]
        while True:
            name = f"static:{prefill}p{decode}d"
            scores = self.run([name])[name]
            if scores.good_share >= GOOD_SHARE:
                return (prefill, decode), scores
            by_decode = sum(count for cause, count in scores.misses.items() if cause in DECODE_MISSES)
            if by_decode > (scores.requests - scores.good_requests) / 2:
                decode += 1
            else:
                prefill += 1


def measured(case: TargetCase, processes: int) -> dict[str, Any]:
    """One row of the table."""
    bench = TargetBench(case, processes)
    fleet, static = bench.smallest_static()
    for quantile in QUANTILES:
        ours = bench.run(["ours"], quantile)["ours"]
        if ours.good_share >= min(GOOD_SHARE, static.good_share):
            break
    plan, times = bench.clairvoyant(ours)
    return {
        "case": case.name,
        "ttft_quantile": quantile,
        "static_fleet": f"{fleet[0]}p{fleet[1]}d",
        "static": static.as_json(),
        "ours": ours.as_json(),
        "clairvoyant": plan.as_json(),
        "regret": times,
        **under_budget(case, fleet, quantile, processes),
    }


def under_budget(case: TargetCase, fleet: tuple[int, int], quantile: float, processes: int) -> dict[str, Any]:
    """Ours and uniform caps on the static fleet's own GPUs under a share of their nameplate watts."""
    bench = TargetBench(replace(case, start=fleet, gpus=_gpus(case, fleet)), processes)
    watts = int(bench.scenario.gpus * bench.scenario.cluster.card.default_mw * BUDGET_SHARE)
    uniform = f"static:{fleet[0]}p{fleet[1]}d+uniform"
    found = bench.run(["ours", uniform], quantile, BudgetSteps(((0.0, watts),)))
    return {"budget_ours": found["ours"].as_json(), "budget_uniform": found[uniform].as_json()}


def _gpus(case: TargetCase, fleet: tuple[int, int]) -> int:
    profile = load_profile(SHARED / "profiles" / case.profile)
    return fleet[0] * profile.prefill_gpus + fleet[1] * profile.decode_gpus


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as Markdown."""
    columns = (
        "case",
        "static fleet: good, GPU-h, MJ",
        "ours: q, good, GPU-h, MJ",
        "energy",
        "GPU-h / the bound at that share",
        "changes/h",
        f"{BUDGET_SHARE:.0%} of watts: ours / uniform caps good",
        "more",
        "over budget",
    )
    lines = [f"| {' | '.join(columns)} |", "| " + " | ".join("---" for _ in columns) + " |"]
    for row in rows:
        static, ours, plan = row["static"], row["ours"], row["clairvoyant"]
        mine, uniform = row["budget_ours"], row["budget_uniform"]
        energy = ours["serving_energy_joules"] / static["serving_energy_joules"] - 1
        most = max(ours["changes_per_hour"].values(), default=0.0)
        lines.append(
            f"| {row['case']} | {row['static_fleet']}: {static['good_share']:.2%}, {static['gpu_hours']:.2f}, "
            f"{static['serving_energy_joules'] / 1e6:.2f} | {row['ttft_quantile']:g}, {ours['good_share']:.2%}, "
            f"{ours['gpu_hours']:.2f}, {ours['serving_energy_joules'] / 1e6:.2f} | {energy:+.1%} "
            f"| {row['regret']:.2f} (its plan in the plant: {plan['good_share']:.2%}, {plan['gpu_hours']:.2f}) "
            f"| {most:.1f} | {mine['good_share']:.2%} / {uniform['good_share']:.2%} "
            f"| {mine['good_requests'] / max(1, uniform['good_requests']) - 1:+.1%} "
            f"| {mine['violation_watt_seconds']:.0f} Ws |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenario", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    rows = [measured(case, args.processes) for case in CASES if not args.scenario or case.name in args.scenario]
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
