"""Rows of text in columns: sorted, filtered, and laid out in the width of a terminal. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

WIDE_COLUMNS = 130
"""From this width on the columns are shown that are marked ``wide``."""
WIDEST = 32
"""Of a column other than the last, which takes what is left."""
NARROWEST = 4
LEAST_LAST = 12
GAP = 2
_DIGITS = re.compile(r"(\d+)")


class Cell(NamedTuple):
    """``order``: what the column is sorted by; None: unknown, which comes last in either direction."""

    text: str
    order: float | str | None


@dataclass(frozen=True, slots=True)
class Column:
    """``right``: figures stand at the right edge. ``wide``: left out in a narrow terminal."""

    title: str
    right: bool = False
    wide: bool = False


@dataclass(frozen=True, slots=True)
class DecisionQuestion:
    """A decision that only the bus can explain. ``kind``: replicas or watts. ``decision_id``: None for the newest."""

    kind: str
    who: str
    decision_id: int | None


@dataclass(frozen=True, slots=True)
class TableRow:
    """``detail``: what Enter shows; ``question``: what it asks the bus besides. ``alert``: asks for attention."""

    key: str
    cells: tuple[Cell, ...]
    detail: str = ""
    question: DecisionQuestion | None = None
    alert: bool = False


def words(text: str) -> Cell:
    """A cell of text, sorted as people count: node-2 before node-10."""
    return Cell(text, text)


def figure(value: float | None, unit: str = "") -> Cell:
    """A cell of a whole figure; a dash where it is unknown."""
    return Cell("-", None) if value is None else Cell(f"{value:.0f}{unit}", value)


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that orders runs of digits by their value."""
    parts = _DIGITS.split(text.casefold())
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part)


def chosen(rows: Iterable[TableRow], wanted: str) -> list[TableRow]:
    """The rows in which every word of ``wanted`` occurs in some cell, in whatever case."""
    parts = wanted.casefold().split()
    if not parts:
        return list(rows)
    return [row for row in rows if _holds(" ".join(cell.text for cell in row.cells).casefold(), parts)]


def _holds(text: str, parts: Sequence[str]) -> bool:
    return all(part in text for part in parts)


def ordered(rows: Iterable[TableRow], column: int, *, reverse: bool) -> list[TableRow]:
    """The rows by the values of one column; rows without a value come last, in their own order."""
    known: list[TableRow] = []
    unknown: list[TableRow] = []
    for row in rows:
        (unknown if row.cells[column].order is None else known).append(row)

    def key(row: TableRow) -> tuple[tuple[float, int, str], ...]:
        order = row.cells[column].order
        return natural(order) if isinstance(order, str) else ((order or 0.0, 0, ""),)

    return sorted(known, key=key, reverse=reverse) + unknown


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns fit, in order, and how wide each is."""

    columns: tuple[int, ...]
    widths: tuple[int, ...]

    def line(self, texts: Sequence[str], columns: Sequence[Column]) -> str:
        """One line of the table; a text that does not fit ends with an ellipsis."""
        parts = [
            _fitted(texts[index], width, right=columns[index].right)
            for index, width in zip(self.columns, self.widths, strict=True)
        ]
        return (" " * GAP).join(parts)

    def column_at(self, x: int) -> int | None:
        """The column that is shown at a position of a line; None right of all."""
        end = 0
        for index, width in zip(self.columns, self.widths, strict=True):
            end += width + GAP
            if x < end:
                return index
        return None


def layout(columns: Sequence[Column], titles: Sequence[str], rows: Sequence[TableRow], width: int) -> Layout:
    """How the table stands in ``width`` columns of a terminal. The last column takes what the others leave."""
    shown = [index for index, column in enumerate(columns) if width >= WIDE_COLUMNS or not column.wide]
    widths = [
        min(WIDEST, max([cell_len(titles[index]), *(cell_len(row.cells[index].text) for row in rows)]))
        for index in shown[:-1]
    ]
    least_last = max(LEAST_LAST, cell_len(titles[shown[-1]]))
    while sum(widths) + GAP * len(widths) + least_last > width and max(widths, default=0) > NARROWEST:
        widths[widths.index(max(widths))] -= 1
    rest = max(1, width - sum(widths) - GAP * len(widths))
    return Layout(tuple(shown), (*widths, rest))


def cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` columns of a terminal."""
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "\u2026"


def _fitted(text: str, width: int, *, right: bool) -> str:
    text = cut(text, width)
    space = " " * (width - cell_len(text))
    return space + text if right else text + space
