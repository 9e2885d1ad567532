"""Runs `wattscale plan-capacity` and shows the results: progress, the answer, table, JSON, plot."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from deploy.cli.build.plan_capacity import DEFAULT_MOST_GPUS
from deploy.cli.build.simulate_options import pools_of, trace_of
from deploy.cli.errors import UsageError
from deploy.cli.output_file import check_writable, write_output
from deploy.demo.demo_profile import profile_of_both_phases
from planner.sim.capacity.capacity_answer import CapacityAnswer, capacity_answer, in_words, percent
from planner.sim.capacity.capacity_plot import capacity_svg
from planner.sim.capacity.capacity_search import CapacitySpace, search
from planner.sim.capacity.frontier import CapacityPoint, pareto_frontier
from planner.sim.capacity.sized_cluster import busiest_gpus, cluster_sizes, sized, work_by_pool
from planner.sim.cluster.plant import ClusterSpec
from planner.sim.evaluation.run_batch import Result, RunJob, run_jobs
from planner.sim.policies.catalogue import UnknownPolicyError, make
from planner.sim.policies.ours import OursSettings
from planner.sim.workload.scenario import BudgetSteps, Scenario, card_of

COLUMNS = ("GPUs", "watts", "good %", "peak W", "p95 TTFT ms", "p95 ITL ms", "energy MJ", "over budget Ws")


def run_plan_capacity(args: argparse.Namespace) -> int:
    """Search, show the answer first, return 0, or 1 where nothing keeps the promise.

    Raises UsageError before any run begins.
    """
    scenario = _scenario(args)
    space = _space(args, scenario)
    _check_policy(args)
    if args.svg is not None:
        check_writable("--svg", args.svg)
    points = _searched(args, scenario, space)
    answer = capacity_answer(points, args.good_percent / 100, space.counts)
    if args.svg is not None:
        write_output(
            "--svg", args.svg, capacity_svg(f"Capacity for {scenario.trace.name}", points, answer.promise_share)
        )
    if args.json:
        print(json.dumps(_as_json(args, scenario, answer, points), indent=2))
    else:
        _print(args, answer, points)
    return 0 if answer.smallest is not None else 1


def _scenario(args: argparse.Namespace) -> Scenario:
    profile = profile_of_both_phases(args.profile, args.gpu)
    scenario = Scenario(
        trace=trace_of(args),
        profile=profile,
        cluster=ClusterSpec(1, args.gpus_per_node, card_of(args.gpu)),
        pools=pools_of(args, profile, (1, 1)),
        ttft_ms=args.ttft_ms,
        itl_ms=args.itl_ms,
        truth=args.profile_error,
        duration_s=args.duration_s,
    )
    for pool in scenario.pools:
        if pool.gpus_per_replica > args.gpus_per_node:
            raise UsageError(
                f"a {pool.pool} worker of this profile needs {pool.gpus_per_replica} GPUs, more than --gpus-per-node"
            )
    return scenario


def _space(args: argparse.Namespace, scenario: Scenario) -> CapacitySpace:
    card = scenario.cluster.card
    fed = int(args.budget_watts * 1000 // card.min_mw)
    least = sum(pool.gpus_per_replica for pool in scenario.pools)
    if fed < least:
        raise UsageError(
            f"--budget-watts {args.budget_watts:g}: a worker of each phase takes {least} GPUs, which cannot be capped "
            f"below {least * card.min_mw / 1000:g} W in sum"
        )
    counts = cluster_sizes(scenario, min(fed, args.max_gpus or DEFAULT_MOST_GPUS))
    if not counts:
        raise UsageError(f"--max-gpus {args.max_gpus}: a worker of each phase takes {least} GPUs")
    return CapacitySpace(counts, card.min_mw / 1000, card.max_mw / 1000, args.budget_watts)


def _check_policy(args: argparse.Namespace) -> None:
    try:
        make(args.policy)
    except UnknownPolicyError as error:
        raise UsageError(f"--policy: {error}") from error
    if args.policy.startswith("static"):
        raise UsageError("--policy static: its fleet has one size; name a policy that decides the counts")


class _Plant:
    """Measures cluster sizes by runs of the plant."""

    def __init__(self, args: argparse.Namespace, scenario: Scenario, bars: Progress) -> None:
        self._args, self._scenario, self._bars = args, scenario, bars
        self._settings = OursSettings(
            interval_s=args.interval_s, ttft_quantile=args.ttft_quantile, slo_share=args.slo_share
        )
        self._work = work_by_pool(scenario)
        self._task = bars.add_task("runs", total=args.points)
        self._processes = args.processes or os.cpu_count() or 1
        self._done = 0

    def measure(self, gpus: int, budgets_watts: Sequence[int]) -> list[CapacityPoint]:
        """One run for each budget, in their order."""
        jobs = [
            RunJob(self._args.policy, self._args.seed, f"{gpus} GPUs, {watts} W", _steady(watts), self._settings)
            for watts in budgets_watts
        ]
        shares = [0.0] * len(jobs)

        def report(number: int, share: float) -> None:
            shares[number] = share
            self._bars.update(self._task, completed=self._done + sum(shares), description=f"{gpus} GPUs")

        scenario = sized(self._scenario, gpus, self._work)
        found = {result.job: result for result in run_jobs(scenario, jobs, self._processes, report)}
        self._done += len(jobs)
        self._bars.update(self._task, completed=self._done)
        return [_point(gpus, watts, found[job]) for job, watts in zip(jobs, budgets_watts, strict=True)]


def _steady(watts: int) -> BudgetSteps:
    return BudgetSteps(((0.0, watts * 1000),))


def _point(gpus: int, watts: int, result: Result) -> CapacityPoint:
    s = result.scores
    return CapacityPoint(
        gpus,
        watts,
        s.good_share,
        s.peak_watts,
        s.energy_joules,
        s.ttft_ms_p95,
        s.itl_ms_p95,
        s.violation_watt_seconds,
    )


def _searched(args: argparse.Namespace, scenario: Scenario, space: CapacitySpace) -> tuple[CapacityPoint, ...]:
    """All measured points. On a terminal, shows the runs made and the time left if the search takes all that it may."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("about"),
        TimeRemainingColumn(),
        TextColumn("left, or less"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, speed_estimate_period=600) as bars:
        plant = _Plant(args, scenario, bars)
        return search(space, args.good_percent / 100, args.points, plant.measure, busiest_gpus(scenario))


def _as_json(
    args: argparse.Namespace, scenario: Scenario, answer: CapacityAnswer, points: Sequence[CapacityPoint]
) -> dict[str, Any]:
    return {
        "load": {"name": scenario.trace.name, "requests": len(scenario.trace), "seconds": scenario.end_s},
        "promise": {"ttft_ms": args.ttft_ms, "itl_ms": args.itl_ms, "good_share": answer.promise_share},
        "budget_watts": args.budget_watts,
        "profile": scenario.profile.name,
        "policy": args.policy,
        "answer": {**asdict(answer), "sentences": in_words(answer, args.budget_watts)},
        "frontier": [asdict(point) for point in pareto_frontier(points)],
        "points": [asdict(point) for point in sorted(points, key=lambda point: (point.gpus, point.watts))],
    }


def _print(args: argparse.Namespace, answer: CapacityAnswer, points: Sequence[CapacityPoint]) -> None:
    for line in in_words(answer, args.budget_watts):
        print(line)
    print()
    console = Console(width=None if sys.stdout.isatty() else 170)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for point in pareto_frontier(points):
        table.add_row(*_row(point), style="bold" if point == answer.smallest else None)
    console.print(table)
    print(f"{len(points)} runs; the table has those that no other run equals with as few GPUs and watts")
    if args.svg is not None:
        print(f"plot: {args.svg}")


def _row(point: CapacityPoint) -> tuple[str, ...]:
    return (
        str(point.gpus),
        str(point.watts),
        percent(point.good_share).removesuffix(" %"),
        f"{point.peak_watts:.0f}",
        f"{point.ttft_ms_p95:.0f}",
        f"{point.itl_ms_p95:.1f}",
        f"{point.energy_joules / 1e6:.2f}",
        f"{point.violation_watt_seconds:.0f}",
    )
