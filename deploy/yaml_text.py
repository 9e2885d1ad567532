"""Reads YAML that people write: plain values only, no key twice, no aliases that unfold into a flood."""

from __future__ import annotations

from typing import Any

import yaml

MOST_NODES = 100_000
"""Most values after aliases are unfolded."""
DEEPEST = 50


def read_yaml(text: str) -> Any:
    """The value. Raises ValueError in one line."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _size(node, {}, 0) > MOST_NODES:
                raise ValueError(f"its aliases unfold into more than {MOST_NODES} values")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {_line(error)}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """As the library's, but a key that is given twice is a mistake: the first would be lost silently."""
        seen: set[Any] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Values below a node, with every alias counted as often as it is used. Raises ValueError."""
    if depth > DEEPEST:
        raise ValueError(f"nested more than {DEEPEST} deep")
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1  # of a value that holds itself
        inner = node.value if isinstance(node, yaml.SequenceNode) else ()
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_size(part, known, depth + 1) for part in inner)
    return known[id(node)]


def _line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        at = error.problem_mark
        return error.problem + (f" (line {at.line + 1}, column {at.column + 1})" if at else "")
    return " ".join(str(error).split())
