"""Takes the expressions of rules apart: each side of each comparison must return data for a rule that can fire."""

from __future__ import annotations

import re
from collections.abc import Iterator

_JOIN = re.compile(r"(?:and|or|unless)\b(?:\s+(?:on|ignoring)\s*\([^)]*\))?")
_COMPARISON = re.compile(r"==|!=|>=|<=|>|<")
_NUMBER = re.compile(r"-?[\d.]+")
_OPEN, _CLOSE = "({[", ")}]"


def sides(expression: str) -> Iterator[str]:
    """Every operand of `and`, `or`, `unless` and of comparisons, without those that are plain numbers."""
    text = _bare(expression)
    for pattern in (_JOIN, _COMPARISON):
        parts = _split(text, pattern)
        if len(parts) > 1:
            for part in parts:
                yield from sides(part)
            return
    if not _NUMBER.fullmatch(text):
        yield text


def _bare(text: str) -> str:
    """Without the parentheses around the whole."""
    text = text.strip()
    while text.startswith("(") and _end(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _end(text: str) -> int:
    """Where the parenthesis closes that the text begins with."""
    for at, depth in _depths(text):
        if depth == 0:
            return at
    return -1


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """Each character outside of a string, with how many brackets are open after it."""
    depth, quoted = 0, False
    for at, char in enumerate(text):
        quoted ^= char == '"'
        if not quoted:
            depth += (char in _OPEN) - (char in _CLOSE)
            yield at, depth


def _split(text: str, pattern: re.Pattern[str]) -> list[str]:
    """At the matches of ``pattern`` that are in no bracket and no string, and do not begin within a word."""
    parts, start = [], 0
    for at, depth in _depths(text):
        within = at > 0 and (text[at - 1].isalnum() or text[at - 1] in "_:<>=!")
        if depth or at < start or within:
            continue
        if found := pattern.match(text, at):
            parts.append(text[start:at].strip())
            start = found.end()
    return [*parts, text[start:].strip()]
