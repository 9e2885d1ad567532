"""Lays sources of settings over one another and remembers which source each value came from. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.compose.masking import masked

Tree = dict[str, Any]


class SettingsError(Exception):
    """Settings that cannot be used. ``problems``: one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


@dataclass(slots=True)
class Merged:
    """The values of all sources so far, and the origin of each leaf by dotted path.

    ``problems``: one line for each value that was given below a name that holds a plain value.
    """

    tree: Tree = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    """One line for each value that found nothing to be set on."""

    def put(self, path: Sequence[str], value: Any, origin: str) -> None:
        """Set one value; a mapping is laid over what is there, key by key."""
        if isinstance(value, Mapping):
            self._table(path, origin)
            for key, inner in value.items():
                self.put((*path, str(key)), inner, origin)
            return
        *parents, last = path
        self._table(parents, origin)[last] = value
        self.origins[".".join(path)] = origin

    def get(self, path: Sequence[str]) -> Any:
        """The value at ``path``, or None."""
        node: Any = self.tree
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        return node

    def _table(self, path: Iterable[str], origin: str) -> Tree:
        node, so_far = self.tree, ""
        for key in path:
            so_far = f"{so_far}.{key}" if so_far else key
            inner = node.get(key)
            if not isinstance(inner, dict):
                if inner is not None:
                    where = self.origins.get(so_far, "")
                    self.problems.append(
                        f"{so_far}: holds {masked(repr(inner))} ({where}) where {origin} sets names below it"
                    )
                self.origins.pop(so_far, None)
                inner = node[key] = {}
            node = inner
        return node


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by dotted path. Lists and empty tables are leaves."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{path}.")
        else:
            yield path, value
