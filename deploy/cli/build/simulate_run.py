"""Runs `wattscale simulate` and shows the results: progress, table, JSON, report, what-if."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy.cli.build.simulate_options import Asked, asked
from deploy.cli.errors import UsageError
from deploy.cli.output_file import check_writable, write_output
from planner.sim.evaluation.html_report import COLUMNS, html, score_row
from planner.sim.evaluation.regret import Regret, regret
from planner.sim.evaluation.run_batch import Result, RunJob, run_jobs
from planner.sim.workload.scenario import BudgetSteps


def run_simulate(args: argparse.Namespace) -> int:
    """Run all policies, show the results, return the exit code. Raises UsageError before any run begins."""
    wanted = asked(args)
    if args.html is not None:
        check_writable("--html", args.html)
    processes = args.processes or os.cpu_count() or 1
    results = _made(wanted, _jobs(wanted), processes)
    if wanted.what_if:
        results += _made(wanted, _what_if(wanted, results), processes)
    if args.html is not None:
        write_output("--html", args.html, html("Simulation", _facts(args, wanted), wanted.scenario, results))
    if args.json:
        print(json.dumps(_as_json(args, wanted, results), indent=2))
    else:
        _print(wanted, results)
        if args.html is not None:
            print(f"report: {args.html}")
    return 0


def _jobs(wanted: Asked) -> list[RunJob]:
    many = len(wanted.seeds) > 1
    return [
        RunJob(name, seed, f"{name} #{seed}" if many else name, wanted.scenario.budget, wanted.settings)
        for name in wanted.policies
        for seed in wanted.seeds
    ]


def _what_if(wanted: Asked, results: Sequence[Result]) -> list[RunJob]:
    """Our first policy again, under fractions of the budget or, without a budget, of its peak draw."""
    ours = next((r for r in results if r.job.policy.partition("-")[0] in ("ours", "classic", "load", "sla+load")), None)
    if ours is None:
        raise UsageError("--what-if-budget needs one of our policies in --policy")
    base = wanted.scenario.budget or BudgetSteps(((0.0, int(ours.scores.peak_watts * 1000)),))
    least = wanted.scenario.gpus * wanted.scenario.cluster.card.min_mw
    jobs = []
    for share in wanted.what_if:
        budget = base.scaled(share)
        if min(mw for _, mw in budget.steps) < least:
            raise UsageError(f"--what-if-budget {share:g}: below {least / 1000:g} W, the sum of minimum caps")
        label = f"{ours.job.policy} at {share:.0%} ({budget.steps[0][1] / 1000:.0f} W)"
        jobs.append(RunJob(ours.job.policy.removesuffix("-nopower"), ours.job.seed, label, budget, wanted.settings))
    return jobs


def _made(wanted: Asked, jobs: Sequence[RunJob], processes: int) -> list[Result]:
    """All results in the order of the jobs. Shows a progress bar per run on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>28}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal) as bars:
        tasks = [bars.add_task(job.label, total=1.0) for job in jobs]
        report = lambda number, share: bars.update(tasks[number], completed=share)  # noqa: E731
        found = {result.job: result for result in run_jobs(wanted.scenario, jobs, processes, report)}
    return [found[job] for job in jobs]


def _facts(args: argparse.Namespace, wanted: Asked) -> dict[str, str]:
    scenario = wanted.scenario
    budget = "none" if scenario.budget is None else args.budget_watts
    return {
        "load": f"{scenario.trace.name}, {len(scenario.trace)} requests, {scenario.end_s / 3600:.2f} h",
        "targets": f"TTFT {scenario.ttft_ms:g} ms, mean ITL {scenario.itl_ms:g} ms, for each request",
        "profile": scenario.profile.name,
        "engines": f"{scenario.truth:g} times as fast as profiled",
        "cluster": f"{scenario.cluster.nodes} x {scenario.cluster.gpus_per_node} {scenario.cluster.card.model}",
        "start-up": f"{args.startup_s:g} s, from {args.start}",
        "budget in watts": budget,
    }


def _as_json(args: argparse.Namespace, wanted: Asked, results: Sequence[Result]) -> dict[str, Any]:
    return {
        "scenario": _facts(args, wanted),
        "results": [
            {
                "seed": result.job.seed,
                **result.scores.as_json(),
                "good_shares": [row._asdict() for row in result.shares],
                "regret": {name: found.times for name, found in _regrets(result, results)},
            }
            for result in results
        ],
    }


def _print(wanted: Asked, results: Sequence[Result]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 170)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == COLUMNS[0] else "right", no_wrap=True)
    for result in results:
        table.add_row(*score_row(result))
    console.print(table)
    for result in results:
        s = result.scores
        more = f"{s.reachable_share:.2%} of the reachable, {s.token_share:.2%} of tokens"
        stall = f"99 % of answers pause for no more than {s.stall_ms_p99:.0f} ms"
        console.print(f"{s.policy}: good are {more}; {stall}", style="dim", highlight=False)
        for phase, (predicted, measured, apart) in result.share_errors().items():
            shares = f"predicted {predicted:.1%}, measured {measured:.1%}, {100 * apart:.1f} points apart at a tick"
            console.print(f"{s.policy}: {phase} in time: {shares}", style="dim", highlight=False)
        if result.scores.misses:
            causes = ", ".join(f"{name} {count}" for name, count in result.scores.misses.items())
            console.print(f"{result.scores.policy}: missed by {causes}", style="dim", highlight=False)
        for name, found in _regrets(result, results):
            console.print(f"{result.scores.policy}, by {name}: {found.sentence}", highlight=False)
    for line in _what_if_lines(wanted, results):
        console.print(line, highlight=False)


def _regrets(result: Result, results: Sequence[Result]) -> list[tuple[str, Regret]]:
    """The regret of one run to each clairvoyant that met the same budget and seed."""
    found = []
    for other in results:
        alike = (other.job.budget, other.job.seed) == (result.job.budget, result.job.seed)
        if other.bound is None or not alike:
            continue
        one = regret(result.scores, other.bound, budget=result.job.budget is not None)
        if one is not None:
            found.append((other.scores.policy, one))
    return found


def _what_if_lines(wanted: Asked, results: Sequence[Result]) -> list[str]:
    if not wanted.what_if:
        return []
    less = results[-len(wanted.what_if) :]
    base = next(r for r in results if r.job.policy == less[0].job.policy and r not in less)
    lines = []
    for share, result in zip(wanted.what_if, less, strict=True):
        good = 100 * (result.scores.good_share - base.scores.good_share)
        energy = result.scores.energy_joules / base.scores.energy_joules - 1
        lines.append(
            f"what if {share:.0%} of the power: good requests {good:+.2f} points, energy {energy:+.1%}, "
            f"p95 TTFT {base.scores.ttft_ms_p95:.0f} to {result.scores.ttft_ms_p95:.0f} ms"
        )
    return lines
