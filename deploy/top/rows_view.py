"""A table on a terminal: only the rows that are seen are drawn, so that ten thousand cost no more than ten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from deploy.top.table_rows import Column, Layout, TableRow, cut, layout

ALERT = Style(color="red", bold=True)
HEAD = Style(bold=True, underline=True)
CURSOR = Style(reverse=True)
"""Seen on every terminal, with colours or without."""
WHEEL_ROWS = 3


class RowsView(Widget, can_focus=True):
    """Rows under a head, with a cursor that stays on its row when the rows change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)"),
        Binding("down,j", "move(1)"),
        Binding("pageup", "turn(-1)"),
        Binding("pagedown,space", "turn(1)"),
        Binding("home,g", "edge(0)"),
        Binding("end,G", "edge(1)"),
        Binding("enter", "choose"),
        # Here, because a screen would move the focus with them.
        Binding("tab,right", "app.next(1)"),
        Binding("shift+tab,left", "app.next(-1)"),
    ]

    class Chosen(Message):
        """A row was chosen."""

        def __init__(self, row: TableRow) -> None:
            self.row = row
            super().__init__()

    class HeadClicked(Message):
        """The head of a column was clicked."""

        def __init__(self, column: int) -> None:
            self.column = column
            super().__init__()

    class Moved(Message):
        """The cursor was moved."""

    def __init__(self) -> None:
        super().__init__()
        self._columns: Sequence[Column] = ()
        self._titles: Sequence[str] = ()
        self._rows: Sequence[TableRow] = ()
        self._empty = ""
        self._layout = Layout((), ())
        self._at = self._first = 0

    def fill(
        self, columns: Sequence[Column], titles: Sequence[str], rows: Sequence[TableRow], empty: str, key: str | None
    ) -> None:
        """Show these rows, the cursor on the one with this key (None: the first), or else where it was."""
        self._columns, self._titles, self._rows, self._empty = columns, titles, rows, empty
        at = 0 if key is None else next((index for index, row in enumerate(rows) if row.key == key), self._at)
        self._at = min(at, max(0, len(rows) - 1))
        self._lay_out()

    @property
    def row(self) -> TableRow | None:
        """The row under the cursor; None where there are no rows."""
        return self._rows[self._at] if self._rows else None

    @property
    def at_top(self) -> bool:
        """Whether the cursor is on the first row."""
        return self._at == 0

    def rewind(self) -> None:
        """Put the cursor on the first row."""
        self._at = self._first = 0

    @property
    def shown_columns(self) -> tuple[int, ...]:
        """The columns that the terminal is wide enough for."""
        return self._layout.columns

    def _lay_out(self) -> None:
        if self._columns and self.size.width:
            self._layout = layout(self._columns, self._titles, self._rows, self.size.width)
        body = max(1, self.size.height - 1)
        self._first = max(0, min(self._first, self._at, len(self._rows) - body), self._at - body + 1)
        self.refresh()

    def on_resize(self) -> None:
        """Lay out anew for another size."""
        self._lay_out()

    def render_line(self, y: int) -> Strip:
        """The head, or the row that stands at a line."""
        width, index = self.size.width, self._first + y - 1
        if y == 0:
            return self._strip(self._layout.line(self._titles, self._columns), HEAD)
        if index < len(self._rows):
            row = self._rows[index]
            style = ALERT if row.alert else Style.null()
            if index == self._at:
                style += CURSOR
            return self._strip(self._layout.line([cell.text for cell in row.cells], self._columns), style)
        return self._strip(cut(self._empty, width) if y == 1 else "", Style.null())

    def _strip(self, text: str, style: Style) -> Strip:
        style = self.visual_style.rich_style + style
        return Strip([Segment(text, style)]).adjust_cell_length(self.size.width, style)

    def _go(self, index: int) -> None:
        self._at = max(0, min(index, len(self._rows) - 1))
        self._lay_out()
        self.post_message(self.Moved())

    def action_move(self, rows: int) -> None:
        """Move the cursor by rows."""
        self._go(self._at + rows)

    def action_turn(self, screens: int) -> None:
        """Move the cursor by as many rows as are seen."""
        self._go(self._at + screens * max(1, self.size.height - 1))

    def action_edge(self, last: int) -> None:
        """Move the cursor to the first row or the last."""
        self._go(len(self._rows) if last else 0)

    def action_choose(self) -> None:
        """Choose the row under the cursor."""
        if (row := self.row) is not None:
            self.post_message(self.Chosen(row))

    def on_mouse_scroll_down(self) -> None:
        """Move on."""
        self.action_move(WHEEL_ROWS)

    def on_mouse_scroll_up(self) -> None:
        """Move back."""
        self.action_move(-WHEEL_ROWS)

    def on_click(self, event: events.Click) -> None:
        """Sort by a head; go to a row, and choose it with a second click."""
        if event.y == 0:
            if (column := self._layout.column_at(event.x)) is not None:
                self.post_message(self.HeadClicked(column))
        elif (index := self._first + event.y - 1) < len(self._rows):
            self._go(index)
            if event.chain > 1:
                self.action_choose()
