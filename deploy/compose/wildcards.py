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
OF_GPUS = ("gpus_per_replica", "min_gpus", "max_cap_watts", "power_curve")
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
            concrete = list(_spread(path, deployments, sites, merged, layers))
            if not concrete:
                merged.unused.append(f"{origin}: no deployment has a pool {path.split('.')[3]}, so it changes nothing")
            for each in concrete:
                _put(merged, each, value, origin)
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
            yield from _pools(("deployments", name, *parts[2:]), merged, layers, by_name=parts[1] != "*")
    else:
        yield tuple(parts)


def _pools(
    path: tuple[str, ...], merged: Merged, layers: Sequence[Layer], *, by_name: bool
) -> Iterator[tuple[str, ...]]:
    """A path into pools touches all or one of them; a deployment without pools of GPUs gets the usual two first.

    What is said of GPUs does not touch the frontends among all pools. ``by_name``: the path names its deployment, so
    that the pool of a path that no other source names is one that its user wants.
    """
    if len(path) < 5 or path[2] != "pools":
        yield path
        return
    frontends = _frontends(path[1], layers)
    named = [pool for pool in _named_pools(path, merged, layers) if pool not in frontends] or list(DEFAULT_POOLS)
    for pool in named:
        merged.put((*path[:3], pool), {}, "default")
    if path[3] == "*":
        touched = named if path[4] in OF_GPUS else [*named, *frontends]
        yield from ((*path[:3], pool, *path[4:]) for pool in touched)
    elif by_name or path[3] in named or path[3] in frontends:
        yield path


def _named_pools(path: tuple[str, ...], merged: Merged, layers: Sequence[Layer]) -> list[str]:
    named: dict[str, None] = dict.fromkeys(merged.get(path[:3]) or ())
    for layer in layers:
        blocks = layer.tree.get("deployments")
        block = blocks.get(path[1]) if isinstance(blocks, dict) else None
        pools = block.get("pools") if isinstance(block, dict) else None
        named.update(dict.fromkeys(pools if isinstance(pools, dict) else ()))
        for at, value, _ in layer.spread:
            if at in {f"deployments.{path[1]}.pools", "deployments.*.pools"} and isinstance(value, dict):
                named.update(dict.fromkeys(value))
    return list(named)


def _frontends(deployment: str, layers: Sequence[Layer]) -> list[str]:
    """The pools of a deployment that some source makes a frontend, by name or by role."""
    roles: dict[str, object] = {}
    for layer in layers:
        above: Any = layer.tree
        for key in ("deployments", deployment, "pools"):
            above = above.get(key) if isinstance(above, dict) else None
        for pool, block in (above if isinstance(above, dict) else {}).items():
            roles.setdefault(str(pool), str(pool))
            if isinstance(block, dict) and block.get("role"):
                roles[str(pool)] = block["role"]
        for path, value, _ in layer.spread:
            parts = path.split(".")
            if parts[:1] + parts[2:3] != ["deployments", "pools"] or parts[1] not in {deployment, "*"}:
                continue
            for pool in parts[3:4]:
                roles.setdefault(pool, pool)
                role = value.get("role") if len(parts) == 4 and isinstance(value, dict) else None
                roles[pool] = value if parts[4:] == ["role"] else role or roles[pool]
    return [pool for pool, role in roles.items() if role == "frontend"]


def _put(merged: Merged, path: tuple[str, ...], value: Any, origin: str) -> None:
    if path[-1].endswith(APPEND):
        path = (*path[:-1], path[-1].removesuffix(APPEND))
        before = merged.get(path) or ""
        value = before if str(value) in before else f"{before}{value}"
    merged.put(path, value, origin)
