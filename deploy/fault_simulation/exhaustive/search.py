"""Breadth first, one shard: which worlds are known, which are to be expanded, and what one expansion gives.

A world belongs to the shard that its key names, so that several processes can search together and each knows its own.
"""

from __future__ import annotations

import pickle
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from deploy.fault_simulation.exhaustive.actions import Action, carried_out, enabled
from deploy.fault_simulation.exhaustive.calm import judged
from deploy.fault_simulation.exhaustive.canonical import key_of
from deploy.fault_simulation.exhaustive.checks import broken, stepped_badly
from deploy.fault_simulation.exhaustive.leaders import stepped
from deploy.fault_simulation.exhaustive.model_state import ModelState
from deploy.fault_simulation.exhaustive.scope import SearchScope

CHUNK = 500
"""Worlds that are kept as one compressed block: a world costs a few hundred bytes so."""

Found = tuple[int, int, Action, ModelState]
"""A world's key, its parent's key, the action between them, and the world."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A promise that does not hold: the world in which it held, and the step that broke it.

    ``action`` None: calm weather after that world does not mend what it should.
    """

    parent: int
    action: Action | None
    sentence: str


def block(worlds: list[tuple[int, ModelState]]) -> bytes:
    """Worlds with their keys, compressed."""
    return zlib.compress(pickle.dumps(worlds, pickle.HIGHEST_PROTOCOL), 1)


def unblock(data: bytes) -> list[tuple[int, ModelState]]:
    """What ``block`` packed."""
    worlds: list[tuple[int, ModelState]] = pickle.loads(zlib.decompress(data))  # noqa: S301  # our own blocks
    return worlds


@dataclass(slots=True)
class Expanded:
    """What became of a few worlds."""

    found: list[Found] = field(default_factory=list)
    worlds: int = 0
    transitions: int = 0
    judged: int = 0
    broken: Broken | None = None


def expand(scope: SearchScope, worlds: Iterable[tuple[int, ModelState]], *, own: bool = True) -> Expanded:
    """Every step from each of ``worlds``, and calm weather from some, until a promise is broken."""
    out = Expanded()
    for key, world in worlds:
        out.worlds += 1
        if key % scope.judged_every == 0:
            out.judged += 1
            if sentence := judged(scope, world):
                out.broken = Broken(key, None, sentence)
                return out
        known = {key}
        for action, after, sentence in steps(scope, world, own=own):
            out.transitions += 1
            if sentence:
                out.broken = Broken(key, action, sentence)
                return out
            if after == world:
                continue  # cheaper than a key: what nothing changed is the same objects
            found = key_of(scope, after)
            if found not in known:
                known.add(found)
                out.found.append((found, key, action, after))
    return out


def steps(scope: SearchScope, world: ModelState, *, own: bool = True) -> Iterator[tuple[Action, ModelState, str]]:
    """Every step from one world: the action, the world afterwards, and what it broke.

    ``own``: also by the product's own invariants. A mutation must be seen by limits and charges, not by a check that
    stands beside the fault.
    """
    for action in enabled(scope, world):
        if action[0] == "tick":
            after, before, orders = stepped(scope, world)
            sentence = stepped_badly(scope, world, before, after.leader, orders) if own else ""
        else:
            after, sentence = carried_out(scope, world, action), ""
        yield action, after, sentence or broken(scope, world, after, action)


class Shard:
    """The worlds whose keys fall to one process: known keys, how each was reached, and what is to be expanded."""

    def __init__(self) -> None:
        self.index: dict[int, int] = {}
        self.parents = array("Q")
        self.actions: list[Action | None] = []
        self.frontier: list[bytes] = []
        self.next: list[bytes] = []
        self._open: list[tuple[int, ModelState]] = []

    def add(self, found: Iterable[Found | tuple[int, int, None, ModelState]]) -> int:
        """Take in what is new; how many that were."""
        fresh = 0
        for key, parent, action, world in found:
            if key in self.index:
                continue
            self.know(key, parent, action)
            self._open.append((key, world))
            fresh += 1
            if len(self._open) >= CHUNK:
                self._close()
        return fresh

    def know(self, key: int, parent: int, action: Action | None) -> None:
        """A world that need not be met again, and how it was reached."""
        self.index[key] = len(self.parents)
        self.parents.append(parent)
        self.actions.append(_shared(action))

    def _close(self) -> None:
        if self._open:
            self.next.append(block(self._open))
            self._open = []

    def turn(self) -> int:
        """Go on to the next depth; how many blocks are to be expanded in it."""
        self._close()
        self.frontier, self.next = self.next, []
        return len(self.frontier)

    def settled(self) -> None:
        """Nothing is left outside of blocks: the shard can be written down."""
        self._close()

    def came_by(self, key: int) -> tuple[int, Action | None]:
        """The parent of a known world, and the action between them."""
        at = self.index[key]
        return self.parents[at], self.actions[at]


_SHARED: dict[Action, Action] = {}


def _shared(action: Action | None) -> Action | None:
    """One object for each action: there are a few dozen, and millions of worlds."""
    return None if action is None else _SHARED.setdefault(action, action)
