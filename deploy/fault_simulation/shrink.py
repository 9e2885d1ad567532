"""Reduces a failing run: fewer events, fewer kinds of faults, fewer faults, still failing."""

from __future__ import annotations

from dataclasses import replace

from deploy.fault_simulation.proof_run import Outcome, ProofRun, prove
from deploy.fault_simulation.scenario import ALL_FAULTS

MOST_RUNS = 80


class Shrinker:
    """Tries smaller runs, keeps those that still break a promise, and stops after ``MOST_RUNS`` trials."""

    def __init__(self, outcome: Outcome) -> None:
        self.best = outcome
        self.runs = 0

    def shrink(self) -> Outcome:
        """The smallest failing run found."""
        for kind in ALL_FAULTS:
            self._try(replace(self.best.run, without=self.best.run.without | {kind}))
        self._fewer()
        return self.best

    def _try(self, run: ProofRun) -> bool:
        if self.runs >= MOST_RUNS:
            return False
        self.runs += 1
        outcome = prove(replace(run, events=self.best.events))
        if outcome.failure is None:
            return False
        self.best = replace(outcome, run=replace(run, events=outcome.events))
        return True

    def _fewer(self) -> None:
        """Drop halves of the faults that occurred, then quarters, down to single ones."""
        kept = [number for number, _ in self.best.struck]
        size = len(kept)
        while size >= 1 and self.runs < MOST_RUNS:
            at = 0
            while at < len(kept):
                fewer = kept[:at] + kept[at + size :]
                if self._try(replace(self.best.run, only=frozenset(fewer))):
                    kept = fewer
                else:
                    at += size
            size //= 2


def shrunk(outcome: Outcome) -> Outcome:
    """The same broken promise, or another one, with less around it."""
    start = replace(outcome, run=replace(outcome.run, events=outcome.events))
    return Shrinker(start).shrink()
