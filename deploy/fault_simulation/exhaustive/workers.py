"""One process of a search: it owns the worlds whose keys fall to it, expands them, and passes others on as blocks."""

from __future__ import annotations

import multiprocessing
import pickle
import resource
import zlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from deploy.fault_simulation.exhaustive.actions import Action
from deploy.fault_simulation.exhaustive.calm import beginning
from deploy.fault_simulation.exhaustive.canonical import key_of
from deploy.fault_simulation.exhaustive.mutation_patches import mutated
from deploy.fault_simulation.exhaustive.scopes import SCOPES
from deploy.fault_simulation.exhaustive.search import Broken, Found, Remembered, Shard, expand, packed, unpacked

NO_PARENT = 0


@dataclass(slots=True)
class Round:
    """What one block gave. ``outgoing``: by process, the worlds that are another's."""

    worlds: int = 0
    transitions: int = 0
    judged: int = 0
    fresh: int = 0
    blocks_left: int = 0
    memory_bytes: int = 0
    broken: Broken | None = None
    outgoing: dict[int, bytes] = field(default_factory=dict)


class SearchWorker:
    """The search's share of process ``number`` of ``jobs``."""

    def __init__(self, scope: str, mutation: str | None, number: int, jobs: int) -> None:
        self._scope = SCOPES[scope]
        self._mutation = mutation
        self._number, self._jobs = number, jobs
        self._shard = Shard()
        self._memory = Remembered(self._scope)

    def begin(self) -> int:
        """Put the first world where it belongs; 1 there, 0 elsewhere."""
        with mutated(self._mutation):
            world = beginning(self._scope)
            key = key_of(self._scope, world)
        if key % self._jobs != self._number:
            return 0
        return self._shard.add([(key, NO_PARENT, None, world)])

    def turn(self) -> int:
        """The next depth; how many blocks it has here."""
        return self._shard.turn()

    def again(self) -> int:
        """Go back to the depth that was only checked; how many blocks it has here."""
        return self._shard.again()

    def expand(self, keep: bool) -> Round:
        """One block; with ``keep`` what is found is to be expanded in its turn."""
        shard = self._shard
        if not shard.frontier:
            return Round()
        block = shard.frontier.pop()
        worlds = unpacked(block)
        if isinstance(block, bytes):
            worlds = [(key, self._memory.shared(world)) for key, world in worlds]
        with mutated(self._mutation):
            out = expand(self._scope, worlds, self._memory, own=self._mutation is None, keep=keep)
        if not keep:
            shard.checked.append(block)
        by_owner: dict[int, list[Found]] = {}
        for found in out.found:
            by_owner.setdefault(found[0] % self._jobs, []).append(found)
        fresh = shard.add(by_owner.pop(self._number, ()))
        outgoing = {owner: zlib.compress(pickle.dumps(found), 1) for owner, found in by_owner.items()}
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Round(out.worlds, out.transitions, out.judged, fresh, len(shard.frontier), memory, out.broken, outgoing)

    def take(self, found: bytes) -> int:
        """Worlds that another process met; how many of them are new."""
        worlds: list[Found] = pickle.loads(zlib.decompress(found))  # noqa: S301  # our own blocks
        return self._shard.add([(key, by, action, self._memory.shared(world)) for key, by, action, world in worlds])

    def came_by(self, key: int) -> tuple[int, Action | None]:
        """How a world of ours was reached."""
        return self._shard.came_by(key)

    def save(self, folder: str) -> int:
        """Write everything to the checkpoint; returns its bytes. Nothing may be in flight between processes."""
        shard = self._shard
        shard.close()
        keys = array("Q", shard.index.keys())
        blocks = [
            [each if isinstance(each, bytes) else packed(each) for each in part]
            for part in (shard.frontier, shard.next, shard.checked)
        ]
        path = Path(folder) / f"part-{self._number}.new"
        path.write_bytes(pickle.dumps((keys, shard.parents, shard.actions, *blocks), pickle.HIGHEST_PROTOCOL))
        return path.stat().st_size

    def load(self, paths: tuple[str, ...]) -> int:
        """Take up what belongs here of what any number of processes wrote down; how many worlds that were."""
        mine, taken = self._shard, 0
        for path in paths:
            keys, parents, actions, *parts = pickle.loads(Path(path).read_bytes())  # noqa: S301  # ours
            for key, parent, action in zip(keys, parents, actions, strict=True):
                if key % self._jobs == self._number:
                    mine.know(key, parent, action)
                    taken += 1
            for blocks, into in zip(parts, (mine.frontier, mine.next, mine.checked), strict=True):
                for each in blocks:
                    ours = [pair for pair in unpacked(each) if pair[0] % self._jobs == self._number]
                    if ours:
                        into.append(packed(ours))
        return taken


class Local:
    """A worker in this process."""

    def __init__(self, *arguments: Any) -> None:
        self._worker = SearchWorker(*arguments)
        self._result: Any = None

    def start(self, command: str, *arguments: Any) -> None:
        """Do it."""
        self._result = getattr(self._worker, command)(*arguments)

    def result(self) -> Any:
        """What came of it."""
        return self._result

    def close(self) -> None:
        """Nothing to end."""


class Remote:
    """A worker in a process of its own: fresh, for a forked one would carry this one's patches along."""

    def __init__(self, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def start(self, command: str, *arguments: Any) -> None:
        """Ask for it."""
        self._ours.send((command, arguments))

    def result(self) -> Any:
        """Wait for what comes of it. Raises EOFError where the process died."""
        return self._ours.recv()

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join(5.0)
        if self._process.is_alive():
            self._process.kill()


def _serve(pipe: Connection, arguments: tuple[Any, ...]) -> None:
    worker = SearchWorker(*arguments)
    while True:
        try:
            command, given = pipe.recv()
        except EOFError:
            return
        do: Callable[..., Any] = getattr(worker, command)
        pipe.send(do(*given))
