"""Whether the budget held in a period: caps in force against budgets, from what agents acknowledged. Pure.

Caps in force are the limits that agents read back from the hardware. Between two acknowledgements the older one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bus_schemas import v1
from deploy.report.journal import Entry
from deploy.report.usage import Period

ROUNDING_WATTS = 0.5
"""Sums of limits in milliwatts, written in watts, may differ from a budget by this much."""

PROMPT = timedelta(minutes=1)
"""A first acknowledgement this soon after the beginning leaves nothing open."""


@dataclass(frozen=True, slots=True)
class Excess:
    """A time in which caps in force came to more than the budget.

    ``after_cut``: it began with a lower budget, so that it is the time that compliance took; otherwise it is a
    violation. ``ended`` is None where it lasted beyond the period.
    """

    site: str
    began: datetime
    ended: datetime | None
    most_watts: float
    """The largest difference."""
    after_cut: bool


@dataclass(frozen=True, slots=True)
class Order:
    """One budget command, and how long it took until caps in force were within it. None: not within the period."""

    site: str
    time: datetime
    watts: float | None
    """None: a release."""
    effective: datetime
    """When it had to be reached: after its start and its ramp."""
    complied_s: float | None
    reason: str
    issued_by: str


@dataclass(slots=True)
class SiteWatts:
    """One site's watts in the period. Budgets as its decisions state them."""

    site: str
    nodes: int = 0
    unanswered: tuple[str, ...] = ()
    """Nodes that have decisions and no acknowledgement: what their GPUs are limited to is not known."""
    known_from: datetime | None = None
    """The first acknowledgement, where there is none from before the period: until then nothing is known."""
    late: int = 0
    """Nodes of which nothing is known before their first acknowledgement in the period."""
    least_budget: float | None = None
    most_budget: float | None = None
    most_enforced: float | None = None
    acknowledgements: int = 0
    excesses: list[Excess] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)

    @property
    def violations(self) -> list[Excess]:
        """Excesses that no cut explains."""
        return [one for one in self.excesses if not one.after_cut]


@dataclass(slots=True)
class _Site:
    """A site while its messages are walked through in order."""

    figures: SiteWatts
    budget: float | None = None
    outside: dict[str, frozenset[str]] = field(default_factory=dict)
    limits: dict[str, dict[str, float]] = field(default_factory=dict)
    began: datetime | None = None
    most: float = 0.0
    after_cut: bool = False
    explained: float = 0.0
    """While a cut is carried out: what was in force when it began, and less after each limit that went down."""
    decided: set[str] = field(default_factory=set)
    sums: list[tuple[datetime, float]] = field(default_factory=list)
    first: dict[str, datetime] = field(default_factory=dict)
    """When each node's first acknowledgement was stored."""
    node_mw: dict[str, int] = field(default_factory=dict)
    total_mw: int = 0
    """Kept as a whole number: thousands of nodes answer thousands of times."""

    @property
    def total(self) -> float:
        return self.total_mw / 1000

    def recount(self, node: str) -> None:
        outside = self.outside.get(node, frozenset())
        now = sum(round(watts * 1000) for gpu, watts in self.limits.get(node, {}).items() if gpu not in outside)
        self.total_mw += now - self.node_mw.get(node, 0)
        self.node_mw[node] = now


def watts(entries: Iterable[Entry], period: Period) -> list[SiteWatts]:
    """Figures by site, sorted by name. Messages from before the period only say what was in force when it began."""
    walk = _Walk(period)
    ordered = sorted(entries, key=lambda entry: entry.stored_at)
    for entry in ordered:
        if entry.stored_at <= period.until:
            walk.take(entry)
    return walk.finish(_orders(ordered, period))


class _Walk:
    def __init__(self, period: Period) -> None:
        self.period = period
        self.sites: dict[str, _Site] = {}
        self.site_of: dict[str, str] = {}

    def take(self, entry: Entry) -> None:
        message = entry.message
        if isinstance(message, v1.PowerDecision) and message.site:
            self._decision(message, entry.stored_at)
        elif isinstance(message, v1.PowerAck):
            self._ack(message, entry.stored_at)

    def _decision(self, message: v1.PowerDecision, at: datetime) -> None:
        site = self.sites.setdefault(message.site, _Site(SiteWatts(message.site)))
        self.site_of[message.node] = message.site
        site.decided.add(message.node)
        site.outside[message.node] = frozenset((*(message.outside_gpus or ()), *(message.released_gpus or ())))
        site.recount(message.node)
        cut = site.budget is not None and message.budget_watts is not None and message.budget_watts < site.budget
        site.budget = message.budget_watts
        self._judge(site, at, cut=cut)

    def _ack(self, message: v1.PowerAck, at: datetime) -> None:
        name = self.site_of.get(message.node)
        if name is None:
            return
        site = self.sites[name]
        before = site.limits.get(message.node, {})
        # A limit that could not be read is the one before.
        now = {
            gpu.gpu: before.get(gpu.gpu, 0.0) if gpu.enforced_watts is None else gpu.enforced_watts
            for gpu in message.gpus
        }
        is_first = message.node not in site.limits
        site.limits[message.node] = now
        site.recount(message.node)
        site.first.setdefault(message.node, at)
        if is_first:  # In force before, too, though nobody knew of it.
            site.explained += site.node_mw[message.node] / 1000
        if at >= self.period.since:
            site.figures.acknowledgements += 1
        self._judge(site, at, cut=False)

    def _judge(self, site: _Site, at: datetime, *, cut: bool) -> None:
        total, figures = site.total, site.figures
        if site.limits:
            site.sums.append((at, total))
        over = total - site.budget if site.budget is not None else 0.0
        if over > ROUNDING_WATTS:
            if site.began is None:
                site.began, site.after_cut, site.most, site.explained = at, cut, 0.0, total
            elif total > site.explained + ROUNDING_WATTS:
                site.after_cut = False  # A limit went up meanwhile, which no cut explains.
            site.explained = min(site.explained, total)
            site.most = max(site.most, over)
        elif site.began is not None:
            self._close(site, at)
        if at >= self.period.since and site.budget is not None:
            known = [one for one in (figures.least_budget, figures.most_budget) if one is not None]
            figures.least_budget = min((site.budget, *known))
            figures.most_budget = max((site.budget, *known))
            figures.most_enforced = max(figures.most_enforced or 0.0, total)

    def _close(self, site: _Site, ended: datetime | None) -> None:
        began, site.began = site.began, None
        if began is not None and (ended is None or ended >= self.period.since):
            name = site.figures.site
            site.figures.excesses.append(Excess(name, began, ended, site.most, site.after_cut))

    def finish(self, orders: Sequence[tuple[datetime, v1.BudgetChange]]) -> list[SiteWatts]:
        found = []
        for name, site in sorted(self.sites.items()):
            self._close(site, None)
            late = [at for at in site.first.values() if at > self.period.since + PROMPT]
            site.figures.late = len(late)
            site.figures.known_from = min(late) if late and len(late) == len(site.first) else None
            site.figures.nodes = len(site.decided)
            site.figures.unanswered = tuple(sorted(site.decided - site.limits.keys()))
            site.figures.orders = [_judged(at, order, site.sums) for at, order in orders if order.site == name]
            found.append(site.figures)
        return found


def _orders(entries: Sequence[Entry], period: Period) -> list[tuple[datetime, v1.BudgetChange]]:
    return [
        (entry.stored_at, entry.message)
        for entry in entries
        if isinstance(entry.message, v1.BudgetChange) and period.since <= entry.stored_at <= period.until
    ]


def _judged(at: datetime, order: v1.BudgetChange, sums: Sequence[tuple[datetime, float]]) -> Order:
    effective = max(at, order.effective_from or at) + timedelta(seconds=order.ramp_s)
    complied = None
    if not order.release:
        before = [total for when, total in sums if when <= effective]
        if before and before[-1] <= order.budget_watts + ROUNDING_WATTS:
            complied = 0.0
        else:
            later = (when for when, total in sums if when > effective and total <= order.budget_watts + ROUNDING_WATTS)
            complied = next(((when - effective).total_seconds() for when in later), None)
    watts_wanted = None if order.release else order.budget_watts
    return Order(order.site, at, watts_wanted, effective, complied, order.reason, order.issued_by)
