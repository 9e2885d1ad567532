"""Many runs as one proof: a seed's events in episodes, each a world of its own, over all cores."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from deploy.fault_simulation.proof_run import Outcome, ProofRun, prove

EPISODE = 10_000
"""Events per world: long enough for hundreds of faults, short enough that a proof sees many worlds."""


@dataclass(slots=True)
class Tally:
    """Totals of a campaign so far."""

    events: int = 0
    worlds: int = 0
    virtual_s: float = 0.0
    work_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    over_s: list[float] = field(default_factory=list)
    judged: int = 0
    failures: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Add one run."""
        self.events += outcome.events
        self.worlds += 1
        self.virtual_s += outcome.virtual_s
        self.work_s += outcome.wall_s
        self.counts.update(outcome.counts)
        self.over_s += outcome.statistics.over_s
        self.judged += outcome.statistics.judged
        if outcome.failure is not None:
            self.failures.append(outcome)


def runs_of(
    seed: str, events: int, mutation: str | None, without: frozenset[str], only: frozenset[int] | None
) -> list[ProofRun]:
    """The runs of one seed. ``7.3`` is one episode alone; ``7`` is as many episodes as the events need."""
    if "." in seed:
        return [ProofRun(seed, events, mutation, without, only)]
    starts = range(0, events, EPISODE)
    return [ProofRun(f"{seed}.{n}", min(EPISODE, events - at), mutation, without, only) for n, at in enumerate(starts)]


def outcomes(runs: Iterable[ProofRun], jobs: int) -> Iterator[Outcome]:
    """Every run's outcome, in the order of the runs."""
    if jobs <= 1:
        yield from map(prove, runs)
        return
    # Fresh processes: a forked one would carry this process's threads and patches along.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(prove, runs)


def reproduction(run: ProofRun) -> str:
    """The command line that repeats a run."""
    words = ["wattscale prove", f"--seed {run.seed}", f"--events {run.events}"]
    if run.mutation is not None:
        words.append(f"--mutate {run.mutation}")
    if run.without:
        words.append("--without " + ",".join(sorted(run.without)))
    if run.only is not None:
        words.append("--only " + (",".join(str(number) for number in sorted(run.only)) or "none"))
    return " ".join(words)


def quantile(values: list[float], share: float) -> float:
    """The smallest value that a ``share`` of all values do not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
