"""A report as titled tables of text: what Markdown, CSV and HTML show. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bus_schemas.visible_text import visible
from deploy.report.class_usage import ClassUsage
from deploy.report.decisions import MOST_INCIDENTS
from deploy.report.period_report import PeriodReport
from deploy.report.usage import Period, Usage
from deploy.report.watts import Excess, Order, SiteWatts
from deploy.report.what_if import WhatIf

PARTIAL = "*"
"""Marks a figure over a period with gaps."""
WHOLE = 0.999
"""The share of the period from which a figure counts as whole."""
MOST_CHANGES = 500
GOOD = "Good requests: the least and the most that both phases' shares allow."
BY_CLASS = "Sums over the deployments of a class of service, as each plan record names it (`service_class`)."
NO_CLASS = "-"
WHAT_IF = (
    "Each tick's plan begins from what ran then; none was carried out, so none leads to the next.",
    "What ran drew what its GPUs reported; the plan draws what the power model expects of its counts and caps.",
    "A GPU that the plan gives back counts as drawing nothing.",
)


@dataclass(frozen=True, slots=True)
class ReportTable:
    """``notes`` are lines below it. Without rows, ``empty`` is what there is to say."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    empty: str = "nothing"
    notes: Sequence[str] = ()


def tables(made: PeriodReport) -> list[ReportTable]:
    """All tables, the most important first."""
    makers = (_budget, _orders, _deployments, _classes, _what_if, _gaps, _changes, _reasons, _incidents, _evidence)
    return [_visible(table) for make in makers if (table := make(made)) is not None]


def _visible(table: ReportTable) -> ReportTable:
    """Texts from the bus may hold characters that a terminal or a browser would act on."""
    rows = [tuple(visible(cell) for cell in row) for row in table.rows]
    return replace(table, rows=rows, notes=[visible(note) for note in table.notes])


def headline(made: PeriodReport) -> str:
    """The first sentence: was the budget held?"""
    violations = [one for site in made.sites for one in site.violations]
    acks = sum(site.acknowledgements for site in made.sites)
    if not made.sites:
        return "No site with a power budget published a decision."
    if not acks:
        return "Whether the budget was held is not known: no agent acknowledged anything in this period."
    if violations:
        worst = max(one.most_watts for one in violations)
        return f"The budget was NOT held: {len(violations)} times, by up to {worst:.0f} W ({acks} acknowledgements)."
    silent = sum(len(site.unanswered) for site in made.sites)
    nodes = sum(site.nodes for site in made.sites)
    doubt = f"; {silent} of {nodes} nodes have never answered" if silent else ""
    doubt += "".join(f"; of {visible(site.site)} nothing is known before {_clock(at)}" for site, at in _unknown(made))
    cuts = [one for site in made.sites for one in site.excesses]
    carried = "1 cut was" if len(cuts) == 1 else f"{len(cuts)} cuts were"
    during = f", except while {carried} carried out ({_longest(cuts, made.period)})" if cuts else ""
    evidence = f"{acks} acknowledgement{'' if acks == 1 else 's'} of {nodes} node{'' if nodes == 1 else 's'}"
    return f"The budget was held{during}: 0 violations in {evidence}{doubt}."


def _unknown(made: PeriodReport) -> list[tuple[SiteWatts, datetime]]:
    """Sites of which the first part of the period is not known, and until when: the bus forgets."""
    return [(site, site.known_from) for site in made.sites if site.known_from is not None]


def _longest(cuts: Sequence[Excess], period: Period) -> str:
    """How long, at most, and by how many watts."""
    most = max(one.most_watts for one in cuts)
    longest_s = max(_seconds(one.began, one.ended or period.until) for one in cuts)
    unfinished = ", one not finished" if any(one.ended is None for one in cuts) else ""
    return f"at most {longest_s:.2f} s and {most:.0f} W{unfinished}"


def _budget(made: PeriodReport) -> ReportTable:
    rows = [_site(site) for site in made.sites]
    notes = [_excess(one) for site in made.sites for one in site.excesses]
    notes += [
        f"{site.site}: of {site.late} of {site.nodes} nodes nothing is known before they answered in this period:"
        " they are new, or their earlier answers are only in an archive (`wattscale archive`)"
        for site in made.sites
        if site.late
    ]
    columns = ("site", "budget W", "most in force W", "violations", "cuts under way", "acknowledgements", "nodes")
    return ReportTable("Power budget", columns, rows, "no site with a budget", notes)


def _site(site: SiteWatts) -> tuple[str, ...]:
    budget = _number(site.least_budget, 0)
    if site.least_budget != site.most_budget:
        budget = f"{budget} to {_number(site.most_budget, 0)}"
    cuts = len(site.excesses) - len(site.violations)
    most = _number(site.most_enforced, 0)
    return site.site, budget, most, str(len(site.violations)), str(cuts), str(site.acknowledgements), str(site.nodes)


def _excess(one: Excess) -> str:
    lasted = "still when the period ended" if one.ended is None else f"for {_seconds(one.began, one.ended):.2f} s"
    what = "a cut was being carried out" if one.after_cut else "VIOLATION"
    return f"{one.site} {_clock(one.began)}: {what}: up to {one.most_watts:.0f} W above the budget, {lasted}"


def _orders(made: PeriodReport) -> ReportTable:
    rows = [_order(order) for site in made.sites for order in site.orders]
    columns = ("site", "when", "budget W", "in force after", "by", "reason")
    return ReportTable("Budget commands", columns, rows, "none")


def _order(order: Order) -> tuple[str, ...]:
    if order.watts is None:
        complied = "-"
    else:
        complied = "not in this period" if order.complied_s is None else f"{order.complied_s:.2f} s"
    watts = "release" if order.watts is None else f"{order.watts:.0f}"
    return order.site, _clock(order.time), watts, complied, order.issued_by, order.reason


def _deployments(made: PeriodReport) -> ReportTable:
    columns = ("deployment", *(("class",) if made.classes else ()), *_figure_columns(made))
    notes = [GOOD] if made.usages else []
    if any(_partial(one, made.period) for one in made.usages):
        notes.append(f"{PARTIAL} over a part of the period only: see the gaps.")
    notes += [
        f"{one.deployment}: its load ran at {one.load_time_scale:g} times the clock;"
        " GPU-hours and energy are those of the load's time."
        for one in made.usages
        if one.load_time_scale != 1.0
    ]
    notes += [_unmetered(one.deployment, one.unmetered_gpu_s) for one in made.usages if one.unmetered_gpu_s > 0]
    rows = [
        (
            one.deployment,
            *((one.service_class or NO_CLASS,) if made.classes else ()),
            *_figures(one, made, is_partial=_partial(one, made.period)),
        )
        for one in made.usages
    ]
    return ReportTable("Deployments", columns, rows, "no plan record", notes)


def _classes(made: PeriodReport) -> ReportTable | None:
    if not made.classes:
        return None
    notes = [BY_CLASS]
    partial = {one.deployment for one in made.usages if _partial(one, made.period)}
    notes += [
        _unmetered(one.service_class or NO_CLASS, one.unmetered_gpu_s)
        for one in made.classes
        if one.unmetered_gpu_s > 0
    ]
    rows = [
        (
            one.service_class or NO_CLASS,
            str(len(one.deployments)),
            *_figures(one, made, is_partial=not partial.isdisjoint(one.deployments)),
        )
        for one in made.classes
    ]
    return ReportTable("Classes of service", ("class", "deployments", *_figure_columns(made)), rows, notes=notes)


def _unmetered(who: str, gpu_s: float) -> str:
    return f"{who}: the draw of {gpu_s / 3600:.2f} GPU-hours is not known and not in its energy."


def _figure_columns(made: PeriodReport) -> tuple[str, ...]:
    return (
        "requests",
        "prompts in time",
        "answers in time",
        "good requests",
        "TTFT missed",
        "ITL missed",
        "GPU-hours",
        "MJ",
        "J per token",
        *(("cost",) if _priced(made) else ()),
    )


def _figures(one: Usage | ClassUsage, made: PeriodReport, *, is_partial: bool) -> tuple[str, ...]:
    good = one.good_share
    figures = (
        _number(one.requests, 0),
        *(_percent(_in_time(one, phase)) for phase in ("prompts", "answers")),
        "-" if good is None else f"{_percent(good[0])} to {_percent(good[1])}",
        _share_of(one.ttft_missed_s, one.covered_s),
        _share_of(one.itl_missed_s, one.covered_s),
        _number(one.gpu_hours, 2),
        _number(None if one.joules is None else one.joules / 1e6, 2),
        _number(one.joules_per_token, 3),
        *((_number(one.cost(made.prices), 2),) if _priced(made) else ()),
    )
    mark = PARTIAL if is_partial else ""
    return tuple(figure + mark if figure != "-" else figure for figure in figures)


def _in_time(one: Usage | ClassUsage, phase: str) -> float | None:
    """The share of a phase, over the requests of pools that serve it alone and of those that serve both."""
    known = [name for name in (phase, "requests") if name in one.in_time]
    if (whole := sum(one.judged[name] for name in known)) <= 0:
        return None
    return sum(one.judged[name] * one.in_time[name] for name in known) / whole


def _what_if(made: PeriodReport) -> ReportTable | None:
    if made.what_if is None:
        return None
    columns = (
        "deployment",
        "other counts",
        "replicas",
        "GPU-hours ran",
        "planned",
        "saved",
        "MJ ran",
        "planned",
        "saved",
        *(("cost saved",) if _priced(made) else ()),
    )
    notes = [*WHAT_IF] if made.what_if else []
    for one in made.what_if:
        mine = f"{one.deployment}: "
        if one.covered_s < WHOLE * made.period.seconds:
            notes.append(
                f"{mine}figures are of {one.covered_s / 3600:.2f} of {made.period.seconds / 3600:.2f} h{PARTIAL}."
            )
        notes += [f"{mine}nothing is recorded from {_clock(gap.start)} to {_clock(gap.end)}." for gap in one.gaps]
        if one.metered_s < WHOLE * one.covered_s:
            notes.append(f"{mine}joules and cost are of {one.metered_s / 3600:.2f} h, in which both draws are known.")
        if one.assumed_one_gpu:
            notes.append(
                f"{mine}one GPU a replica is assumed of {', '.join(one.assumed_one_gpu)}: no decision names it."
            )
    rows = [_compared(one, made) for one in made.what_if]
    empty = "no record of a deployment with `mode: advisory` in this period"
    return ReportTable("What if: advice that was not carried out", columns, rows, empty, notes)


def _compared(one: WhatIf, made: PeriodReport) -> tuple[str, ...]:
    mark = PARTIAL if one.covered_s < WHOLE * made.period.seconds else ""
    metered = one.metered_s > 0
    counts = " ".join(f"{pool}={least}-{most}" for pool, (least, most) in one.counts.items())
    figures = (
        _number(one.ran_gpu_hours, 2),
        _number(one.planned_gpu_hours, 2),
        _number(one.saved_gpu_hours, 2),
        _number(one.ran_joules / 1e6 if metered else None, 2),
        _number(one.planned_joules / 1e6 if metered else None, 2),
        _number(None if one.saved_joules is None else one.saved_joules / 1e6, 2),
        *((_number(one.saved_cost(made.prices), 2),) if _priced(made) else ()),
    )
    marked = (figure + mark if figure != "-" else figure for figure in figures)
    return one.deployment, _share_of(one.other_s, one.covered_s), counts, *marked


def _gaps(made: PeriodReport) -> ReportTable:
    rows = [
        (one.deployment, _clock(gap.start), _clock(gap.end), _length(_seconds(gap.start, gap.end)))
        for one in made.usages
        for gap in one.gaps
    ]
    notes = ["Records older than the bus keeps them are only in an archive (`wattscale archive`)."] if rows else []
    return ReportTable("Gaps", ("deployment", "from", "to", "long"), rows, "no gap in any deployment's records", notes)


def _length(seconds: float) -> str:
    """A gap is never said to be of 0 seconds: an accelerated run has ticks that are late by less than one."""
    return f"{seconds:.0f} s" if seconds >= 1.0 else f"{seconds:.2g} s"


def _changes(made: PeriodReport) -> ReportTable:
    shown = made.decided.changes[-MOST_CHANGES:]
    rows = [
        (
            _clock(one.time),
            one.deployment,
            f"#{one.decision_id}",
            " ".join(f"{pool}={count}" for pool, count in one.replicas.items()),
            one.why,
            one.outcome or "no answer",
        )
        for one in shown
    ]
    left = len(made.decided.changes) - len(shown)
    notes = [f"{left} older ones are not shown."] if left else []
    columns = ("when", "deployment", "decision", "replicas", "why", "outcome")
    return ReportTable("Scaling decisions", columns, rows, "none", notes)


def _reasons(made: PeriodReport) -> ReportTable:
    found = made.decided
    rows = [(code, str(count)) for code, count in found.reasons.items()]
    answers = ", ".join(f"{count} {status}" for status, count in found.outcomes.items()) or "none"
    notes = [
        f"{found.power_decisions} power decisions; acknowledgements: {answers}.",
        f"{found.limits_lost} limits had been reset or changed by another and were set again.",
        f"{len(found.terms)} planner {'term' if len(found.terms) == 1 else 'terms'} decided something: "
        + (", ".join(f"epoch {epoch} from {_clock(at)}" for at, epoch in found.terms) or "none"),
    ]
    return ReportTable("Why counts changed", ("reason", "decisions"), rows, "no count changed", notes)


def _incidents(made: PeriodReport) -> ReportTable:
    found = made.decided.incidents
    rows = [(_clock(one.time), one.about, one.what, str(one.times)) for one in found[:MOST_INCIDENTS]]
    left = len(found) - len(rows)
    notes = [f"{left} more are not shown."] if left else []
    return ReportTable("Incidents", ("first", "about", "what", "times"), rows, "none", notes)


def _evidence(made: PeriodReport) -> ReportTable:
    rows = [(one.stream, f"{one.first} to {one.last}", str(one.count), one.sha256) for one in made.evidence]
    notes = [f"All of it: SHA-256 {made.digest}"]
    if made.signature is not None:
        notes.append(f"Signed by {made.signature.public_key}: {made.signature.base64}")
    return ReportTable("Evidence", ("stream", "sequences", "messages", "SHA-256"), rows, "no message", notes)


def _partial(one: Usage, period: Period) -> bool:
    return one.covered_s < WHOLE * period.seconds


def _priced(made: PeriodReport) -> bool:
    return made.prices.kwh is not None or made.prices.gpu_hour is not None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _share_of(part_s: float, whole_s: float) -> str:
    return _percent(part_s / whole_s) if whole_s > 0 else "-"


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
