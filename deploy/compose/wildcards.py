"""Lays the planner's sources of settings over one another, with the names that apply to every deployment. Pure.

A Dynamo flag applies to every deployment: such a wildcard is spread over the names that any source gives. It is weaker
than what the same source sets for one deployment by name, and stronger than every weaker source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.compose.settings_layers import Merged, Tree

DEFAULT_POOLS = ("prefill", "decode")
APPEND = "+"
"""At the end of a path: the value is appended to what is there."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One source. ``spread``: (path with wildcards, value, origin); ``tree``: values by name, from ``origin``."""

    origin: str
    tree: Tree = field(default_factory=dict)
    spread: tuple[tuple[str, Any, str], ...] = ()


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
        before = merged.get(path) or ""
        value = before if str(value) in before else f"{before}{value}"
    merged.put(path, value, origin)
