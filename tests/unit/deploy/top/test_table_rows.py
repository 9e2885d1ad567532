"""Sorting, filtering and laying out rows of text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from deploy.top.table_rows import Column, TableRow, chosen, cut, figure, layout, ordered, words


def row(name: str, watts: float | None) -> TableRow:
    return TableRow(name, (words(name), figure(watts, " W"), words(f"about {name}")))


ROWS = [row("node-10", 300.0), row("node-2", None), row("Node-1", 1000.0)]
COLUMNS = (Column("node"), Column("draws", right=True), Column("more", wide=True), Column("why"))


def names(rows: list[TableRow]) -> list[str]:
    return [one.key for one in rows]


def test_names_are_ordered_as_people_count() -> None:
    assert names(ordered(ROWS, 0, reverse=False)) == ["Node-1", "node-2", "node-10"]
    assert names(ordered(ROWS, 0, reverse=True)) == ["node-10", "node-2", "Node-1"]


def test_figures_are_ordered_by_their_value_and_what_is_unknown_comes_last_either_way() -> None:
    assert names(ordered(ROWS, 1, reverse=False)) == ["node-10", "Node-1", "node-2"]
    assert names(ordered(ROWS, 1, reverse=True)) == ["Node-1", "node-10", "node-2"]


def test_a_row_is_chosen_where_every_word_is_in_some_cell() -> None:
    assert names(chosen(ROWS, "  NODE 1000 ")) == ["Node-1"]
    assert names(chosen(ROWS, "node-1")) == ["node-10", "Node-1"]
    assert names(chosen(ROWS, "")) == names(ROWS)
    assert not chosen(ROWS, "node nowhere")


@given(st.lists(st.lists(st.text(max_size=60), min_size=4, max_size=4), max_size=5), st.integers(30, 220))
def test_a_line_is_as_wide_as_the_terminal_whatever_stands_in_it(texts: list[list[str]], width: int) -> None:
    rows = [TableRow("", tuple(words(text) for text in cells)) for cells in texts]
    titles = [column.title for column in COLUMNS]
    made = layout(COLUMNS, titles, rows, width)
    assert (2 in made.columns) == (width >= 130)
    for cells in (titles, *texts):
        assert cell_len(made.line(cells, COLUMNS)) == width


def test_wide_characters_are_cut_to_the_width_that_they_take() -> None:
    assert cut("名名名", 6) == "名名名"
    assert cell_len(cut("名名名", 5)) == 5
    assert cut("abc", 2) == "a\u2026"


def test_a_position_belongs_to_the_column_that_is_drawn_there() -> None:
    made = layout(COLUMNS, [column.title for column in COLUMNS], [], 40)
    assert [made.column_at(x) for x in (0, 5, 6, 12, 13, 39, 500)] == [0, 0, 1, 1, 3, 3, None]
