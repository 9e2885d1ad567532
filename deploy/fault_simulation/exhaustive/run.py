"""A whole search: depth by depth over one or more processes, with progress, bounds, and checkpoints to go on from."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.fault_simulation.campaign import judged_code
from deploy.fault_simulation.exhaustive.actions import Action
from deploy.fault_simulation.exhaustive.scopes import SCOPES
from deploy.fault_simulation.exhaustive.search import Broken
from deploy.fault_simulation.exhaustive.workers import NO_PARENT, Local, Remote, Round

log = logging.getLogger(__name__)

GIB = 1 << 30


class CheckpointError(ValueError):
    """A checkpoint that does not belong to this search; one line."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a search stops before it is complete. None: never for that reason."""

    depth: int | None = None
    seconds: float | None = None
    memory_bytes: int = 4 * GIB


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a search is written down, and how often."""

    folder: Path
    every_s: float = 300.0


@dataclass(slots=True)
class SearchTally:
    """How far a search has come. ``depth`` counts steps: every path of that length is covered."""

    scope: str
    mutation: str | None
    states: int = 0
    """Worlds that were found; without those of the last depth, where a depth was set."""
    transitions: int = 0
    judged: int = 0
    depth: int = 0
    seconds: float = 0.0
    complete: bool = False
    cut: str = ""
    """Why it stopped before its end; empty where it did not."""
    sentence: str = ""
    """The promise that was broken."""
    story: tuple[Action, ...] = ()
    blocks: int = 0
    blocks_left: int = 0
    last: bool = False
    """The depth in work is the last: what it finds is checked and not kept."""
    kept_transitions: int = 0
    """``transitions`` and ``judged`` before the last depth, for a deeper search that takes it up again."""
    kept_judged: int = 0


class ExhaustiveSearch:
    """One scope, with or without a mutation."""

    def __init__(
        self,
        scope: str,
        *,
        mutation: str | None = None,
        jobs: int = 1,
        bounds: Bounds | None = None,
        checkpoint: Checkpoint | None = None,
        progress: Callable[[SearchTally], None] = lambda tally: None,
    ) -> None:
        self.tally = SearchTally(SCOPES[scope].name, mutation)
        self._bounds = bounds or Bounds()
        self._checkpoint = checkpoint
        self._progress = progress
        make = Local if jobs == 1 else Remote
        self._workers: list[Local | Remote] = [make(scope, mutation, number, jobs) for number in range(jobs)]
        self._before_s = 0.0
        self._began_s = time.monotonic()
        self._saved_s = self._began_s

    def run(self) -> SearchTally:
        """Until everything within the bounds is searched, or a promise is broken."""
        try:
            if not self._resume():
                self.tally.states = sum(self._all("begin"))
                self.tally.blocks = self.tally.blocks_left = sum(self._all("turn"))
            self._last_anew()
            while self.tally.blocks_left and self._within():
                if (found := self._depth()) is not None:
                    self._end(found)
                    return self.tally
                if self.tally.blocks_left:
                    break
                self.tally.depth += 1
                if self.tally.last:
                    break
                self.tally.blocks = self.tally.blocks_left = sum(self._all("turn"))
            self._within()
            self.tally.complete = not (self.tally.blocks_left or self.tally.last)
            self._clock()
            if self.tally.cut:
                self._save()
            return self.tally
        finally:
            for worker in self._workers:
                worker.close()

    def _all(self, command: str, *arguments: object) -> list[int]:
        for worker in self._workers:
            worker.start(command, *arguments)
        return [worker.result() for worker in self._workers]

    def _last_anew(self) -> None:
        """After a checkpoint: what was only checked is expanded again, where the search is to go deeper than before."""
        tally = self.tally
        if tally.last and self._bounds.depth != tally.depth + (tally.blocks_left > 0):
            tally.depth -= tally.blocks_left == 0
            tally.transitions, tally.judged = tally.kept_transitions, tally.kept_judged
            tally.last = False
            tally.blocks = tally.blocks_left = sum(self._all("again"))

    def _depth(self) -> Broken | None:
        """Expand this depth; what broke, the same whatever the order of the processes.

        What the last depth finds is checked and not kept: it would be the most by far, and nothing follows.
        """
        if not self.tally.last and self._bounds.depth == self.tally.depth + 1:
            self.tally.last = True
            self.tally.kept_transitions, self.tally.kept_judged = self.tally.transitions, self.tally.judged
        while self.tally.blocks_left and self._within():
            for worker in self._workers:
                worker.start("expand", not self.tally.last)
            rounds: list[Round] = [worker.result() for worker in self._workers]
            broken = [each.broken for each in rounds if each.broken is not None]
            tally = self.tally
            tally.transitions += sum(each.transitions for each in rounds)
            tally.judged += sum(each.judged for each in rounds)
            tally.states += sum(each.fresh for each in rounds) + self._pass_on(rounds)
            tally.blocks_left = sum(each.blocks_left for each in rounds)
            if broken:
                return min(broken, key=lambda b: (b.parent, b.action or ("", 0, 0)))
            self._clock()
            if sum(each.memory_bytes for each in rounds) > self._bounds.memory_bytes:
                tally.cut = f"{self._bounds.memory_bytes / GIB:g} GiB of memory"
            self._progress(tally)
            if self._checkpoint is not None and time.monotonic() - self._saved_s > self._checkpoint.every_s:
                self._save()
        return None

    def _pass_on(self, rounds: list[Round]) -> int:
        fresh = 0
        for each in rounds:
            for owner, found in each.outgoing.items():
                self._workers[owner].start("take", found)
                fresh += self._workers[owner].result()
        return fresh

    def _within(self) -> bool:
        bounds, tally = self._bounds, self.tally
        if tally.cut:
            return False
        self._clock()
        if bounds.depth is not None and tally.depth >= bounds.depth:
            tally.cut = f"depth {bounds.depth}"
        elif bounds.seconds is not None and time.monotonic() - self._began_s > bounds.seconds:
            tally.cut = f"{bounds.seconds:g} s"
        return not tally.cut

    def _clock(self) -> None:
        self.tally.seconds = self._before_s + time.monotonic() - self._began_s

    def _end(self, found: Broken) -> None:
        """The shortest story: from parent to parent, in whichever process each one is."""
        story = [] if found.action is None else [found.action]
        key = found.parent
        while True:
            owner = self._workers[key % len(self._workers)]
            owner.start("came_by", key)
            parent, action = owner.result()
            if parent == NO_PARENT or action is None:
                break
            story.append(action)
            key = parent
        self._clock()
        self.tally.sentence, self.tally.story = found.sentence, tuple(reversed(story))

    # Checkpoints.

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        folder = self._checkpoint.folder
        folder.mkdir(parents=True, exist_ok=True)
        self._all("save", str(folder))
        self._clock()
        # The parts first, the page that names them last: a crash in between leaves the older checkpoint whole.
        number = 1 + max((int(p.stem.split("-")[-1]) for p in folder.glob("part-*-*.bin")), default=0)
        names = []
        for index in range(len(self._workers)):
            name = f"part-{index}-{number}.bin"
            (folder / f"part-{index}.new").rename(folder / name)
            names.append(name)
        page = {**asdict(self.tally), "cut": "", "parts": names, "code": judged_code()}
        (folder / "search.new").write_text(json.dumps(page))
        (folder / "search.new").rename(folder / "search.json")
        for old in folder.glob("part-*-*.bin"):
            if old.name not in names:
                old.unlink()
        self._saved_s = time.monotonic()

    def _resume(self) -> bool:
        """Go on from the checkpoint, if there is one of this code. Raises CheckpointError."""
        if self._checkpoint is None or not (self._checkpoint.folder / "search.json").exists():
            return False
        folder = self._checkpoint.folder
        page = json.loads((folder / "search.json").read_text())
        if (page["scope"], page["mutation"]) != (self.tally.scope, self.tally.mutation):
            raise CheckpointError(f"{folder}: a checkpoint of {page['scope']}, with mutation {page['mutation']}")
        if page.get("code") != judged_code():
            log.warning("%s: the code has changed since, the search starts anew", folder)
            return False
        self._all("load", tuple(str(folder / name) for name in page.pop("parts")))
        names = ("states", "transitions", "judged", "depth", "blocks", "blocks_left")
        for name in (*names, "last", "kept_transitions", "kept_judged"):
            setattr(self.tally, name, page[name])
        self._before_s = page["seconds"]
        return True
