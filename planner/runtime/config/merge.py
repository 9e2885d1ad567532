"""Lays one source of settings over another and remembers which source each value came from. Pure.

Wildcards (a Dynamo flag speaks of every deployment) are spread over the names that any source gives, and are weaker
than what the same source says of one deployment by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Tree = dict[str, Any]
DEFAULT_POOLS = ("prefill", "decode")
APPEND = "+"


@dataclass(frozen=True, slots=True)
class Layer:
    """One source. ``spread``: (path with wildcards, value, origin); ``tree``: what is said by name, from ``origin``."""

    origin: str
    tree: Tree = field(default_factory=dict)
    spread: tuple[tuple[str, Any, str], ...] = ()


@dataclass(slots=True)
class Merged:
    """The settings of all layers, and the origin of each leaf by dotted path."""

    tree: Tree = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def put(self, path: Sequence[str], value: Any, origin: str) -> None:
        """Set one value; a mapping is laid over what is there, key by key."""
        if isinstance(value, Mapping):
            self._table(path)
            for key, inner in value.items():
                self.put((*path, str(key)), inner, origin)
            return
        *parents, last = path
        self._table(parents)[last] = value
        self.origins[".".join(path)] = origin

    def get(self, path: Sequence[str]) -> Any:
        """The value at ``path``, or None."""
        node: Any = self.tree
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        return node

    def _table(self, path: Iterable[str]) -> Tree:
        node = self.tree
        for key in path:
            inner = node.get(key)
            if not isinstance(inner, dict):
                inner = node[key] = {}
            node = inner
        return node


def merge(layers: Sequence[Layer], default_deployment: str) -> Merged:
    """All layers, weakest first. Wildcards make a deployment or site of their own where no source names one."""
    deployments = _names(layers, "deployments") or [default_deployment]
    sites = _names(layers, "sites") or ["default"]
    merged = Merged()
    for layer in layers:
        for path, value, origin in sorted(layer.spread, key=lambda entry: entry[0].endswith(APPEND)):
            for concrete in _spread(path, deployments, sites, merged, layers):
                _put(merged, concrete, value, origin)
        for key, value in layer.tree.items():
            merged.put((key,), value, layer.origin)
    return merged


def _names(layers: Sequence[Layer], block: str) -> list[str]:
    found: dict[str, None] = {}
    for layer in layers:
        named = layer.tree.get(block)
        found.update(dict.fromkeys(named if isinstance(named, dict) else ()))
        for path, _, _ in layer.spread:
            parts = path.split(".")
            if parts[0] == block and len(parts) == 2 and parts[1] not in {"*", "@"}:
                found[parts[1]] = None
    return list(found)


def _spread(
    path: str, deployments: Sequence[str], sites: Sequence[str], merged: Merged, layers: Sequence[Layer]
) -> Iterator[tuple[str, ...]]:
    parts = path.split(".")
    if parts[0] == "sites":
        yield from ((parts[0], name, *parts[2:]) for name in (sites if parts[1] == "@" else parts[1:2]))
    elif parts[0] == "deployments":
        for name in deployments if parts[1] == "*" else parts[1:2]:
            yield from _pools(("deployments", name, *parts[2:]), merged, layers)
    else:
        yield tuple(parts)


def _pools(path: tuple[str, ...], merged: Merged, layers: Sequence[Layer]) -> Iterator[tuple[str, ...]]:
    """A path into pools touches all or one of them; a deployment without pools gets the usual two first."""
    if len(path) < 5 or path[2] != "pools":
        yield path
        return
    named: dict[str, None] = dict.fromkeys(merged.get(path[:3]) or ())
    for layer in layers:
        blocks = layer.tree.get("deployments")
        block = blocks.get(path[1]) if isinstance(blocks, dict) else None
        pools = block.get("pools") if isinstance(block, dict) else None
        named.update(dict.fromkeys(pools if isinstance(pools, dict) else ()))
    for pool in named or DEFAULT_POOLS:
        merged.put((*path[:3], pool), {}, "default")
    for pool in named or DEFAULT_POOLS:
        if path[3] in {"*", pool}:
            yield (*path[:3], pool, *path[4:])


def _put(merged: Merged, path: tuple[str, ...], value: Any, origin: str) -> None:
    if path[-1].endswith(APPEND):
        path = (*path[:-1], path[-1].removesuffix(APPEND))
        before = merged.get(path) or "blend"
        value = before if str(value) in before else f"{before}{value}"
    merged.put(path, value, origin)


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by dotted path. Lists and empty tables are leaves."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{path}.")
        else:
            yield path, value
