"""Many runs as one proof: a seed's events in episodes, each a world of its own, over all cores."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

from deploy.fault_simulation.proof_run import Outcome, ProofRun, prove

log = logging.getLogger(__name__)

EPISODE = 10_000
"""Events per world: long enough for hundreds of faults, short enough that a proof sees many worlds."""

_ROOT = Path(__file__).resolve().parents[2]
_JUDGED = ("agent/core", "bus_schemas", "deploy/fault_simulation", "planner/core", "planner/domain")


@cache
def judged_code(root: Path = _ROOT) -> str:
    """A hash of the sources that a proof runs: progress that was made with other code proves nothing about this one."""
    digest = hashlib.sha256()
    for room in _JUDGED:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


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


class CampaignError(ValueError):
    """A file that is of another campaign; one line."""


class CampaignProgress:
    """How far a campaign has come, written down so that it can go on after an interruption. Runs come in order."""

    def __init__(self, path: Path | None, arguments: Sequence[object]) -> None:
        self._path = path
        self._arguments = [None if value is None else str(value) for value in arguments]
        self._saved_s = time.monotonic()
        self.tally = Tally()

    @classmethod
    def of(cls, folder: str | None, arguments: Sequence[object]) -> CampaignProgress:
        """The campaign of ``arguments`` as ``folder`` has it; from its start where nothing is there of this code.

        Raises CampaignError.
        """
        found = cls(None if folder is None else Path(folder) / "campaign.json", arguments)
        if found._path is not None and found._path.exists():
            page = json.loads(found._path.read_text())
            if page.pop("arguments") != found._arguments:
                raise CampaignError(f"{found._path} is of another campaign")
            if page.pop("code", "") != judged_code():
                log.warning("%s: the code has changed since, the campaign starts anew", found._path)
                return found
            found.tally = Tally(**{**page, "counts": Counter(page["counts"])})
        return found

    def save(self, every_s: float = 0.0) -> None:
        """Write it down, unless that was done less than ``every_s`` ago."""
        if self._path is None or time.monotonic() - self._saved_s < every_s:
            return
        self._saved_s = time.monotonic()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        page = {f.name: getattr(self.tally, f.name) for f in fields(self.tally) if f.name != "failures"}
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({"arguments": self._arguments, "code": judged_code(), **page}))
        fresh.rename(self._path)


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
