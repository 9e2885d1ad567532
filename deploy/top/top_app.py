"""The application of `wattscale top`: tables that follow the feed, with keys to sort, filter and explain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Protocol

from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from deploy.dashboard.feed import Update
from deploy.top.rows_view import RowsView
from deploy.top.shown import ShownParts
from deploy.top.table_rows import DecisionQuestion, TableRow, chosen, cut, ordered
from deploy.top.top_tables import TABLES, TopTable, answers, header

REDRAW_S = 1.0
KEYS = "1-5 tables  / filter  s sort  r reverse  Enter explain  a answers  q quit"
KEYS_OF_TEXT = "up and down scroll  Esc back"


class TopSource(Protocol):
    """Where the picture comes from."""

    def updates(self) -> AsyncIterator[Update]:
        """Everything first, then what changes."""
        ...

    async def explained(self, question: DecisionQuestion) -> str:
        """The explanation of a decision, or why there is none."""
        ...


@dataclass(slots=True)
class TableState:
    """How one table is shown."""

    sort: int
    reverse: bool
    wanted: str = ""
    key: str | None = None
    """Of the row under the cursor; None: the first, whichever that is."""


class TextScreen(ModalScreen[None]):
    """A text over the whole terminal."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "dismiss"), Binding("ctrl+c", "app.quit")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def compose(self) -> ComposeResult:
        """The text, and the keys."""
        with VerticalScroll():
            yield Static(self.text, id="text", markup=False)
        yield Static(KEYS_OF_TEXT, classes="keys", markup=False)


class TopApp(App[None]):
    """``now``: the clock of ages. ``tab``: the name of the table that is shown first, ``wanted``: its filter."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen, ModalScreen { background: ansi_default; color: ansi_default; }
    Static { height: auto; background: ansi_default; color: ansi_default; }
    RowsView { height: 1fr; background: ansi_default; color: ansi_default; }
    VerticalScroll { height: 1fr; background: ansi_default; scrollbar-size: 1 1; }
    Input, Input:focus { height: 1; background: ansi_default; color: ansi_default; }
    #tabs { text-style: bold; height: 1; }
    .keys { height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"table({number - 1})") for number in range(1, len(TABLES) + 1)),
        Binding("slash", "filter"),
        Binding("escape", "clear"),
        Binding("s", "sort(1)"),
        Binding("S", "sort(-1)"),
        Binding("r", "reverse"),
        Binding("a", "answers"),
        Binding("q", "quit"),
        Binding("ctrl+c", "quit", priority=True),
    ]

    def __init__(
        self,
        source: TopSource,
        *,
        tab: str = TABLES[0].name,
        wanted: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        # The terminal's own colours: legible on light and dark ones, and none at all where NO_COLOR is set.
        super().__init__(ansi_color=True)
        self.animation_level = "none"  # each frame would cross the network
        self._source, self._now = source, now
        self._shown = ShownParts()
        self._states = {table.name: TableState(table.sort, table.reverse) for table in TABLES}
        self._number = [table.name for table in TABLES].index(tab)
        self._state.wanted = wanted
        self._fresh = False

    @property
    def _table(self) -> TopTable:
        return TABLES[self._number]

    @property
    def _state(self) -> TableState:
        return self._states[self._table.name]

    def compose(self) -> ComposeResult:
        """What is not well above, a table, and the keys below."""
        yield Static(id="header", markup=False)
        yield Static(id="tabs", markup=False)
        yield RowsView()
        yield Static(id="status", markup=False)
        yield Input(id="filter", compact=True, placeholder="words that a row must contain")
        yield Static(KEYS, id="keys", classes="keys", markup=False)

    def on_mount(self) -> None:
        """Begin to follow the source."""
        self.query_one("#filter", Input).display = False
        self.query_one(RowsView).focus()
        self.run_worker(self._follow(), name="updates")
        self.set_interval(REDRAW_S, self._redraw_ages)
        self._redraw()

    async def _follow(self) -> None:
        async for update in self._source.updates():
            self.take(update)

    def take(self, update: Update) -> None:
        """Show what an update brings."""
        self._shown.take(update)
        self._redraw()
        self._fresh = True

    def _redraw_ages(self) -> None:
        """Ages grow also where nothing comes."""
        if not self._fresh:
            self._redraw()
        self._fresh = False

    def on_resize(self) -> None:
        """Lines are cut for the new width."""
        self._redraw()

    def _redraw(self) -> None:
        if not self.screen_stack or not self.is_running:
            return
        base, now, width = self.screen_stack[0], self._now(), self.size.width
        view, state, table = base.query_one(RowsView), self._state, self._table
        lines = header(self._shown, now, self.size.height)
        base.query_one("#header", Static).update("\n".join(cut(line, width) for line in lines))
        names = [
            f"[{index} {one.name}]" if one is table else f" {index} {one.name} " for index, one in enumerate(TABLES, 1)
        ]
        base.query_one("#tabs", Static).update(cut(" ".join(names), width))
        rows = list(table.rows(self._shown, now))
        found = ordered(chosen(rows, state.wanted), state.sort, reverse=state.reverse)
        titles = [
            column.title + (" v" if state.reverse else " ^") * (index == state.sort)
            for index, column in enumerate(table.columns)
        ]
        empty = table.empty if not rows else f"no row contains {state.wanted}"
        view.fill(table.columns, titles, found, empty, state.key)
        base.query_one("#status", Static).update(cut(self._status(len(found), len(rows)), width))

    def _status(self, found: int, known: int) -> str:
        state = self._state
        how = f"sorted by {self._table.columns[state.sort].title}{', reversed' if state.reverse else ''}"
        only = f"; only with {state.wanted} (Esc: all)" if state.wanted else ""
        return f"{found} of {known}, {how}{only}"

    def _keep_row(self) -> None:
        """Remember the row under the cursor; on the first one the cursor stays first when a newer one comes."""
        view = self.screen_stack[0].query_one(RowsView)
        self._state.key = view.row.key if view.row is not None and not view.at_top else None

    def action_table(self, number: int) -> None:
        """Show a table by its place."""
        self._keep_row()
        self._number = number
        self.query_one(RowsView).rewind()
        self.query_one("#filter", Input).value = self._state.wanted
        self._redraw()

    def action_next(self, step: int) -> None:
        """Show the next table, or the one before."""
        self.action_table((self._number + step) % len(TABLES))

    def action_sort(self, step: int) -> None:
        """Sort by the next column that is shown, or by the one before."""
        shown = self.query_one(RowsView).shown_columns
        at = shown.index(self._state.sort) if self._state.sort in shown else -1
        self._sort_by(shown[(at + step) % len(shown)])

    def _sort_by(self, column: int) -> None:
        self._state.sort = column
        self._redraw()

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._state.reverse = not self._state.reverse
        self._redraw()

    def action_filter(self) -> None:
        """Ask for the words that a row must contain."""
        self._show_filter(shown=True)
        self.query_one("#filter", Input).focus()

    def action_clear(self) -> None:
        """Show all rows again."""
        self.query_one("#filter", Input).value = ""
        self._filtered("")
        self._show_filter(shown=False)

    def _show_filter(self, *, shown: bool) -> None:
        self.query_one("#filter", Input).display = shown
        self.query_one("#status", Static).display = not shown
        if not shown:
            self.query_one(RowsView).focus()

    def _filtered(self, wanted: str) -> None:
        self._state.wanted = wanted
        self._redraw()

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        self._filtered(event.value)

    @on(Input.Submitted, "#filter")
    def _filter_done(self) -> None:
        self._show_filter(shown=False)

    @on(RowsView.HeadClicked)
    def _head_clicked(self, event: RowsView.HeadClicked) -> None:
        if self._state.sort == event.column:
            self.action_reverse()
        else:
            self._sort_by(event.column)

    @on(RowsView.Moved)
    def _moved(self) -> None:
        self._keep_row()

    @on(RowsView.Chosen)
    def _chosen(self, event: RowsView.Chosen) -> None:
        self.run_worker(self._explain(event.row), name="explain", group="explain", exclusive=True)

    async def _explain(self, row: TableRow) -> None:
        texts = [row.detail] if row.detail else []
        if row.question is not None:
            texts.append(await self._source.explained(row.question))
        await self.push_screen(TextScreen("\n\n".join(texts)))

    def action_answers(self) -> None:
        """Show the questions that everybody has, with their answers."""
        self.push_screen(TextScreen(answers(self._shown) or "nothing read yet"))
