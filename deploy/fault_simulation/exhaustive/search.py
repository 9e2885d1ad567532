"""Breadth first, one shard: which worlds are known, which are to be expanded, and what one expansion gives.

A world belongs to the shard that its key names, so that several processes can search together and each knows its own.
"""

from __future__ import annotations

import pickle
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from deploy.fault_simulation.exhaustive import nodes
from deploy.fault_simulation.exhaustive.actions import Action, carried_out, enabled
from deploy.fault_simulation.exhaustive.calm import judged
from deploy.fault_simulation.exhaustive.canonical import key_of_parts, node_part
from deploy.fault_simulation.exhaustive.checks import broken, node_charged, stepped_badly
from deploy.fault_simulation.exhaustive.leaders import stepped
from deploy.fault_simulation.exhaustive.model_state import ModelState, Node, node_id, with_node
from deploy.fault_simulation.exhaustive.scope import SearchScope
from planner.core.power.node_ledger import NodeLedger

K = TypeVar("K")
V = TypeVar("V")

CHUNK = 500
"""Worlds in one block."""
OPEN_BLOCKS = 1_000
"""How many blocks stay as they are, sharing nodes and ledgers; further ones are compressed to ~100 bytes a world."""

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


Worlds = list[tuple[int, ModelState]]
"""Worlds with their keys."""


def packed(worlds: Worlds) -> bytes:
    """Worlds with their keys, compressed."""
    return zlib.compress(pickle.dumps(worlds, pickle.HIGHEST_PROTOCOL), 1)


def unpacked(block: bytes | Worlds) -> Worlds:
    """The worlds of a block, compressed or not."""
    if not isinstance(block, bytes):
        return block
    worlds: Worlds = pickle.loads(zlib.decompress(block))  # noqa: S301  # our own blocks
    return worlds


REMEMBERED = 100_000
"""Entries of one kind; beyond it they are forgotten and computed again."""

Local = Callable[[SearchScope, int, Node, int, float], Node]

LOCAL: dict[str, Local] = {
    "deliver": nodes.received,
    "look": lambda scope, n, node, _index, now_s: nodes.read_hardware(scope, n, node, now_s),
    "report": lambda scope, n, node, _index, now_s: nodes.reported(scope, n, node, now_s),
}
"""What a node does on its own; nothing else of the world is read or changed."""


class Remembered:
    """What was computed for a node, its ledger and an instant: worlds of two nodes share most of it with others.

    Values are keyed by the identity of the objects that they were computed from, and keep these objects alive. One
    memory belongs to one search of one scope, because a mutation changes the results of its functions.
    """

    def __init__(self, scope: SearchScope) -> None:
        self._scope = scope
        self._names = [node_id(n) for n in range(scope.nodes)]
        self._done: dict[tuple[Any, ...], tuple[Node, Node]] = {}
        self._parts: dict[tuple[Any, ...], tuple[bytes, tuple[Any, ...]]] = {}
        self._sentences: dict[tuple[Any, ...], tuple[str, tuple[Any, ...]]] = {}
        self._nodes: dict[bytes, Node] = {}
        self._pages: dict[tuple[Any, ...], NodeLedger] = {}

    def done(self, kind: str, n: int, index: int, node: Node, now_s: float) -> Node:
        """The node after something of ``LOCAL``; the same object where nothing changed."""
        key = (kind, n, index, id(node), now_s)
        if (known := self._done.get(key)) is not None:
            return known[1]
        after = LOCAL[kind](self._scope, n, node, index, now_s)
        after = node if after == node else self._shared_node(after)
        _room(self._done)[key] = (node, after)
        return after

    def key(self, world: ModelState) -> int:
        """As ``canonical.key_of``."""
        scope, leader = self._scope, world.leader
        rest: tuple[Any, ...] = ()
        if scope.rare.get("remove") or scope.rare.get("join"):
            rest = (world.removals, leader.removed, leader.past_ids, leader.node_commands, leader.wants)
        common = (world.now_s, world.epoch, world.budgets, id(world.old), *map(id, rest))
        parts = []
        for n, node in enumerate(world.nodes):
            page = leader.nodes.get(self._names[n])
            key = (n, id(node), id(page), common)
            known = self._parts.get(key)
            if known is None:
                known = node_part(scope, world, n), (node, page, world.old, rest)
                _room(self._parts)[key] = known
            parts.append(known[0])
        return key_of_parts(scope, world, parts)

    def charged(self, world: ModelState) -> str:
        """The first violation that ``checks.node_charged`` finds in any node; empty without one."""
        pages = world.leader.nodes
        for n, node in enumerate(world.nodes):
            page = pages.get(self._names[n])
            key = (n, id(node), id(page), world.now_s, world.leader.doubted)
            known = self._sentences.get(key)
            if known is None:
                known = node_charged(self._scope, world, n), (node, page)
                _room(self._sentences)[key] = known
            if known[0]:
                return known[0]
        return ""

    def shared(self, world: ModelState) -> ModelState:
        """The same world, made of objects that are known already where there are any."""
        return self.with_shared_pages(world._replace(nodes=tuple(map(self._shared_node, world.nodes))))

    def with_shared_pages(self, world: ModelState) -> ModelState:
        """The same world with pages that are known already. Of a report a page knows only that there was one."""
        _room(self._pages)
        pages, same = {}, True
        for name, page in world.leader.nodes.items():
            relevant = (page.seen is not None, page._replace(seen=None, enforced_mw=0))
            pages[name] = self._pages.setdefault(relevant, page)
            same &= pages[name] is page
        return world if same else world._replace(leader=replace(world.leader, nodes=pages))

    def _shared_node(self, node: Node) -> Node:
        return _room(self._nodes).setdefault(pickle.dumps(node, pickle.HIGHEST_PROTOCOL), node)


def _room(table: dict[K, V]) -> dict[K, V]:
    if len(table) >= REMEMBERED:
        table.clear()
    return table


@dataclass(slots=True)
class Expanded:
    """What became of a few worlds."""

    found: list[Found] = field(default_factory=list)
    worlds: int = 0
    transitions: int = 0
    judged: int = 0
    broken: Broken | None = None


def expand(scope: SearchScope, worlds: Worlds, memory: Remembered, *, own: bool = True, keep: bool = True) -> Expanded:
    """Every step from each of ``worlds``, and calm weather from some, until a promise is broken.

    ``keep`` False: the worlds that are found are checked and not returned.
    """
    out = Expanded()
    for key, world in worlds:
        out.worlds += 1
        if key % scope.judged_every == 0:
            out.judged += 1
            if sentence := judged(scope, world):
                out.broken = Broken(key, None, sentence)
                return out
        known = {key}
        for action, after, sentence in steps(scope, world, memory, own=own):
            out.transitions += 1
            if sentence:
                out.broken = Broken(key, action, sentence)
                return out
            if after is world or not keep:
                continue
            found = memory.key(after)
            if found not in known:
                known.add(found)
                out.found.append((found, key, action, after))
    return out


def steps(
    scope: SearchScope, world: ModelState, memory: Remembered, *, own: bool = True
) -> Iterator[tuple[Action, ModelState, str]]:
    """Every step from one world: the action, the world afterwards (itself where nothing changed), and what it broke.

    ``own``: also by the product's own invariants. A mutation must be seen by limits and charges, not by a check that
    stands beside the fault.
    """
    for action in enabled(scope, world):
        kind, n, index = action
        sentence = ""
        if kind == "tick":
            after, before, orders = stepped(scope, world)
            sentence = stepped_badly(scope, world, before, after.leader, orders) if own else ""
        elif kind in LOCAL and (kind != "report" or scope.late_reports):
            node = memory.done(kind, n, index, world.nodes[n], world.now_s)
            after = world if node is world.nodes[n] else with_node(world, n, node)
        else:
            after = carried_out(scope, world, action)
        if after is not world:
            if after.leader is not world.leader:
                after = memory.with_shared_pages(after)
            sentence = sentence or broken(scope, world, after, action, memory.charged)
        yield action, after, sentence


class Shard:
    """The worlds whose keys fall to one process: known keys, how each was reached, and what is to be expanded."""

    def __init__(self) -> None:
        self.index: dict[int, int] = {}
        self.parents = array("Q")
        self.actions: list[Action | None] = []
        self.frontier: list[bytes | Worlds] = []
        self.next: list[bytes | Worlds] = []
        self.checked: list[bytes | Worlds] = []
        """Expanded without keeping what was found: a deeper search expands them again."""
        self._open: Worlds = []

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
                self.close()
        return fresh

    def know(self, key: int, parent: int, action: Action | None) -> None:
        """A world that need not be met again, and how it was reached."""
        self.index[key] = len(self.parents)
        self.parents.append(parent)
        self.actions.append(_shared(action))

    def close(self) -> None:
        """Leave nothing outside of blocks."""
        if self._open:
            self.next.append(packed(self._open) if len(self.next) >= OPEN_BLOCKS else self._open)
            self._open = []

    def turn(self) -> int:
        """Go on to the next depth; how many blocks are to be expanded in it."""
        self.close()
        self.frontier, self.next = self.next, []
        return len(self.frontier)

    def again(self) -> int:
        """Expand what was only checked once more; how many blocks there are to be expanded."""
        self.frontier, self.checked = self.frontier + self.checked, []
        return len(self.frontier)

    def came_by(self, key: int) -> tuple[int, Action | None]:
        """The parent of a known world, and the action between them."""
        at = self.index[key]
        return self.parents[at], self.actions[at]


_SHARED: dict[Action, Action] = {}


def _shared(action: Action | None) -> Action | None:
    """One object for each action: there are a few dozen, and millions of worlds."""
    return None if action is None else _SHARED.setdefault(action, action)
