"""Many runs at once: policies by seeds, over processes, with progress.

Owns the pool of processes. Only small results come back: scores, rows for the plots, changes; never a plant.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing.queues import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from planner.sim.bound.clairvoyant_bound import Bound
from planner.sim.evaluation.scores import Scores, score
from planner.sim.evaluation.simulation import PhaseShare, simulate
from planner.sim.evaluation.timeline import CountChange, TimelineRow
from planner.sim.policies.catalogue import make
from planner.sim.policies.ours import OursSettings
from planner.sim.workload.scenario import BudgetSteps, Scenario

POLL_S = 0.2
Report = Callable[[int, float], None]
"""Called with the number of a run and its progress (0..1)."""


@dataclass(frozen=True, slots=True)
class RunJob:
    """One run to make. ``label`` is its name in tables."""

    policy: str
    seed: int
    label: str
    budget: BudgetSteps | None
    settings: OursSettings


@dataclass(frozen=True, slots=True)
class Result:
    """The results of one run."""

    job: RunJob
    scores: Scores
    rows: tuple[TimelineRow, ...]
    changes: tuple[CountChange, ...]
    ttft_ms: tuple[tuple[float, float], ...]
    """(t_s, 95th percentile of that minute)"""
    itl_ms: tuple[tuple[float, float], ...]
    shares: tuple[PhaseShare, ...] = ()
    """By tick and phase, of policies that predict shares."""
    bound: Bound | None = None
    """Of the clairvoyant: the least cost for every share."""

    def share_errors(self) -> dict[str, tuple[float, float, float]]:
        """By phase: the mean predicted and measured shares, and the mean distance between the two, over all ticks."""
        found = {}
        for phase in dict.fromkeys(row.phase for row in self.shares):
            pairs = [
                (row.predicted, row.measured)
                for row in self.shares
                if row.phase == phase and row.predicted is not None and row.measured is not None
            ]
            if pairs:
                predicted, measured = np.array(pairs).T
                apart = float(np.abs(predicted - measured).mean())
                found[phase] = (float(predicted.mean()), float(measured.mean()), apart)
        return found


def run_job(scenario: Scenario, job: RunJob, progress: Callable[[float], None] | None = None) -> Result:
    """Make one run in this process."""
    ended = simulate(replace(scenario, seed=job.seed, budget=job.budget), make(job.policy, job.settings), progress)
    records = ended.run.plant.records
    t_s = records.column("t_s")
    return Result(
        job,
        replace(score(ended), policy=job.label),
        tuple(ended.run.timeline.rows),
        tuple(ended.run.timeline.changes),
        _by_minute(t_s, records.column("ttft_ms")),
        _by_minute(t_s, records.column("itl_ms")),
        tuple(ended.run.shares),
        ended.run.bound,
    )


def _by_minute(t_s: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """The 95th percentile of each minute that has requests."""
    order = np.argsort(t_s, kind="stable")
    t_s, values = t_s[order], values[order]
    edges = np.arange(0.0, (t_s[-1] if len(t_s) else 0.0) + 120.0, 60.0)
    places = np.searchsorted(t_s, edges)
    return tuple(
        (float(edge), float(np.percentile(values[a:b], 95)))
        for edge, a, b in zip(edges, places, places[1:], strict=False)
        if b > a
    )


_scenario: Scenario | None = None
_queue: SimpleQueue[tuple[int, float]] | None = None


def _prepare(scenario: Scenario, queue: SimpleQueue[tuple[int, float]]) -> None:
    """Keep the scenario, once per process: its trace is large and the same for all jobs."""
    global _scenario, _queue
    _scenario, _queue = scenario, queue


def _work(number: int, job: RunJob) -> Result:
    if _scenario is None or _queue is None:
        raise RuntimeError("a process was not prepared")
    queue = _queue
    return run_job(_scenario, job, lambda share: queue.put((number, share)))


def run_jobs(scenario: Scenario, jobs: Sequence[RunJob], processes: int, report: Report) -> Iterator[Result]:
    """Yield each result as soon as it is ready. With one process, all runs are made in this process."""
    if processes <= 1 or len(jobs) == 1:
        for number, job in enumerate(jobs):
            yield run_job(scenario, job, lambda share, number=number: report(number, share))  # type: ignore[misc]
            report(number, 1.0)
        return
    context = multiprocessing.get_context("spawn")
    queue: SimpleQueue[tuple[int, float]] = context.SimpleQueue()
    with ProcessPoolExecutor(processes, context, _prepare, (scenario, queue)) as pool:
        open_: dict[Future[Result], int] = {pool.submit(_work, number, job): number for number, job in enumerate(jobs)}
        try:
            while open_:
                done, _ = wait(open_, POLL_S, FIRST_COMPLETED)
                while not queue.empty():
                    report(*queue.get())
                for future in done:
                    number = open_.pop(future)
                    yield future.result()
                    report(number, 1.0)
        finally:
            for future in open_:
                future.cancel()
