"""A source of golden lines: digests of it, the file that keeps them, and the first difference in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.goldens.shown import Shown

DATA = Path(__file__).parent / "data"
HEX = 6


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what it is about, and each part as plain tuples."""

    key: str
    parts: tuple[Shown, ...]

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(digest(part) for part in self.parts)

    def __str__(self) -> str:
        return " ".join((self.key.replace(" ", "_"), *self.digests))


@dataclass(frozen=True, slots=True)
class GoldenSource:
    """``parts`` name the digests of a line, in order."""

    name: str
    parts: tuple[str, ...]
    lines: Callable[[], Iterator[Line]]

    @property
    def path(self) -> Path:
        return DATA / f"{self.name}.txt"

    def record(self) -> int:
        """Write the file anew; returns the number of lines."""
        lines = [str(line) for line in self.lines()]
        self.path.write_text("\n".join((f"# {' '.join(self.parts)}", *lines, "")), encoding="utf-8")
        return len(lines)

    def difference(self) -> str | None:
        """The first difference from the file in words, with how many there are; None where there is none."""
        if not self.path.exists():
            return f"{self.name}: {self.path.name} is not there; run `python -m tests.goldens record`"
        kept = [line for line in self.path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        return compared(self.name, self.parts, kept, [str(line) for line in self.lines()])


def digest(part: Shown) -> str:
    """The first hex digits of the SHA-256 of a part's JSON."""
    text = json.dumps(part, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HEX]


def compared(name: str, parts: Sequence[str], kept: Sequence[str], now: Sequence[str]) -> str | None:
    """Recorded lines against today's."""
    first = next((at for at, (then, line) in enumerate(zip(kept, now, strict=False)) if then != line), None)
    if first is None:
        if len(kept) == len(now):
            return None
        return f"{name}: {len(kept)} lines were recorded, now there are {len(now)}"
    differing = sum(then != line for then, line in zip(kept, now, strict=False))
    (key, *then), (now_key, *today) = kept[first].split(), now[first].split()
    if key != now_key:
        return f"{name}: line {first + 1} was {_words(key)!r}, now it is {_words(now_key)!r}"
    where = " and ".join(_changed(parts, then, today)) or "the number of digests"
    return f"{name}: first at {_words(key)}: {where}; {differing} of {len(now)} lines differ"


def _changed(parts: Iterable[str], then: Iterable[str], now: Iterable[str]) -> Iterator[str]:
    for part, old, new in zip(parts, then, now, strict=False):
        if old != new:
            yield f"{part} ({old} recorded, {new} now)"


def _words(key: str) -> str:
    return key.replace("_", " ")
