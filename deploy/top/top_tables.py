"""The tables of `wattscale top` and the lines above them, from the parts of the dashboard's document. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.top.shown import ShownParts
from deploy.top.table_rows import Cell, Column, DecisionQuestion, TableRow, figure, words
from deploy.views.freshness import age_s
from deploy.views.freshness import words as age_words

MOST_SITES = 2
ROWS_PER_ALERT = 8
"""A terminal shows one line of what is not well for so many rows."""
HELD = {True: "held", False: "NOT HELD", None: "no budget known"}


@dataclass(frozen=True, slots=True)
class TopTable:
    """``sort``: the column by which it is sorted at first. ``empty``: what stands where there is no row."""

    name: str
    columns: tuple[Column, ...]
    rows: Callable[[ShownParts, datetime], Iterator[TableRow]]
    sort: int = 0
    reverse: bool = False
    empty: str = "nothing on this bus yet"


FALLBACK = Cell("fallback", None)
"""In place of a lease that nobody renews, because its end would lower no cap."""


def instant(milliseconds: float | None) -> datetime | None:
    """The instant of a part's milliseconds since 1970."""
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000.0, UTC)


def ago(time: datetime | None, now: datetime) -> Cell:
    """How long ago, or a dash."""
    since_s = age_s(time, now)
    return Cell("-", None) if since_s is None else Cell(age_words(since_s), since_s)


def left(until: datetime | None, now: datetime) -> Cell:
    """How long until then: a lease, or "over"."""
    if until is None:
        return Cell("-", None)
    rest_s = (until - now).total_seconds()
    return Cell("over" if rest_s <= 0.0 else age_words(rest_s), rest_s)


def pools(shown: ShownParts, now: datetime) -> Iterator[TableRow]:
    """A row for each pool of each deployment; Enter prints what ``wattscale explain`` prints."""
    for name, part in shown.named("deployment"):
        trouble = f"! {part['trouble']}; " if part["trouble"] else ""
        missed = part["ttft"]["missed"] or part["itl"]["missed"]
        called = f"{name} ({part['class']})" if "class" in part else name
        for pool in part["pools"]:
            cells = (
                words(called),
                words(pool["name"]),
                figure(pool["ready"]),
                figure(pool["desired"]),
                figure(pool["granted"]),
                figure(pool["starting"]),
                figure(pool["draining"]),
                figure(pool["cap"], " W"),
                ago(instant(part["tick"]), now),
                words(part["load"]),
                words(("! " if part["ttft"]["missed"] else "") + part["ttft"]["text"]),
                words(("! " if part["itl"]["missed"] else "") + part["itl"]["text"]),
                words(trouble + pool["reason"]),
            )
            question = DecisionQuestion("replicas", name, None)
            yield TableRow(f"{name}/{pool['name']}", cells, question=question, alert=bool(trouble or missed))


def budgets(shown: ShownParts, _: datetime) -> Iterator[TableRow]:
    """A row for each site, and one for each of its budget commands that is not over."""
    for site, part in shown.named("site"):
        held = HELD[part["held"]]
        cells = (
            words(site),
            words(held),
            figure(part["budget"], " W"),
            figure(part["caps"], " W"),
            figure(part["drawn"], " W"),
            words(part["line"]),
        )
        detail = f"{site}: {held}\n{part['line']}"
        detail += "".join(f"\n    {command['text']}: {command['state']}" for command in part["commands"])
        yield TableRow(site, cells, detail, alert=part["held"] is False)
        for index, command in enumerate(part["commands"]):
            watts = figure(command["watts"], " W")
            none = Cell("", None)
            cells = (words(site), words(command["state"]), watts, none, none, words(command["text"]))
            yield TableRow(f"{site}/{index}/{command['text']}", cells, f"{command['text']}: {command['state']}")


def gpus(shown: ShownParts, now: datetime) -> Iterator[TableRow]:
    """A row for each GPU; the odd ones say why."""
    odd = shown.parts.get("odd", {})
    for node, part in shown.named("node"):
        draws = shown.parts.get(f"draw/{node}", [None])
        seen = ago(instant(None if draws[0] is None else draws[0] * 1000.0), now)
        number = shown.parts[f"lease/{node}"]["decision"]
        question = DecisionQuestion("watts", node, number) if number >= 0 else None
        for gpu, watts in zip(part["gpus"], draws[1:], strict=False):
            yield _gpu(node, gpu, watts, odd.get(gpu[0], ""), seen, question)


def _gpu(
    node: str, gpu: list[Any], watts: float | None, why: str, seen: Cell, question: DecisionQuestion | None
) -> TableRow:
    name, index, model, cap, most, deployment, pool, role, pod, health, covered = gpu
    note = "; ".join(filter(None, (f"! {why}" if why else "", "" if covered else "outside the budget")))
    place = f"GPU {index}" if index is not None else name
    cells = (
        words(node),
        figure(index) if index is not None else words(name),
        figure(watts, " W"),
        figure(cap, " W"),
        figure(most, " W"),
        words(model),
        words(deployment),
        words(pool or "-"),
        words(pod or "-"),
        seen,
        words(health),
        words(note),
    )
    detail = "\n".join(
        (
            f"{node} {place}: {name}, {model}, at most {most} W",
            f"draws {cells[2].text}, cap {cells[3].text}, {health}, seen {seen.text} ago",
            f"{deployment} {pool} ({role}), pod {pod}" if pool else "no worker has it",
            note or "not odd",
        )
    )
    return TableRow(name, cells, detail, question, alert=bool(why))


def decisions(shown: ShownParts, _: datetime) -> Iterator[TableRow]:
    """A row for each line of the timeline, as long as the feed keeps them."""
    for number, line in enumerate(shown.lines):
        time = instant(line["t"])
        text = line["text"] if line["well"] else f"! {line['text']}"
        # Lines of one millisecond keep their order.
        cells = (
            Cell(f"{time:%H:%M:%S}", line["t"] + number / 1e6),
            words(line["kind"]),
            words(line["who"]),
            words(text),
        )
        question = None if line["id"] is None else DecisionQuestion(line["kind"], line["who"], line["id"])
        key = f"{line['t']} {line['text']}"
        yield TableRow(key, cells, f"{time:%Y-%m-%d %H:%M:%S} UTC {text}", question, alert=not line["well"])


def agents(shown: ShownParts, now: datetime) -> Iterator[TableRow]:
    """A row for each planner and each node's agent: how old its news is, and the lease of what it holds."""
    yield from _planners(shown.overview, now)
    silent = set(shown.overview.get("silent", ()))
    for node, part in shown.named("node"):
        draws, lease = shown.parts.get(f"draw/{node}", [None]), shown.parts[f"lease/{node}"]
        renewed = lease["renewed"]
        until = instant(renewed + lease["lease_s"] * 1000.0) if renewed is not None and lease["lease_s"] else None
        state = "! silent" if node in silent else "waits for its agent" if lease["waits"] else "well"
        covered = [(gpu[3] or 0, watts or 0) for gpu, watts in zip(part["gpus"], draws[1:], strict=False) if gpu[10]]
        cells = (
            words(node),
            words("agent"),
            words(part["site"]),
            ago(instant(None if draws[0] is None else draws[0] * 1000.0), now),
            left(until, now) if until is None or lease["lapses"] else FALLBACK,
            _number(lease["decision"]),
            _number(lease["applied"]),
            figure(len(part["gpus"])),
            figure(sum(watts for _, watts in covered), " W"),
            figure(sum(cap for cap, _ in covered), " W"),
            words(state),
        )
        question = DecisionQuestion("watts", node, lease["decision"]) if lease["decision"] >= 0 else None
        yield TableRow(f"agent {node}", cells, f"agent of {node}: {state}", question, alert=node in silent)


def _number(decision_id: int) -> Cell:
    return Cell("-", None) if decision_id < 0 else Cell(f"#{decision_id}", float(decision_id))


def _planners(overview: Mapping[str, Any], now: datetime) -> Iterator[TableRow]:
    found = []
    if overview.get("leader"):
        found.append((overview["leader"], overview["lease_until"], "leads"))
    found += [(one["name"], one["until"], "stands by") for one in overview.get("standby", ())]
    for name, until, state in found:
        lease, none = left(instant(until), now), Cell("", None)
        cells = (words(name), words("planner"), none, Cell("-", None), lease, *[none] * 5, words(state))
        detail = f"planner {name}: {state}; its lease: {lease.text}"
        yield TableRow(f"planner {name}", cells, detail)


TABLES = (
    TopTable(
        "pools",
        (
            *(Column("deployment"), Column("pool"), Column("ready", right=True), Column("wanted", right=True)),
            *(Column("granted", right=True), Column("starting", right=True, wide=True)),
            *(Column("draining", right=True, wide=True), Column("cap", right=True)),
            *(Column("tick", right=True, wide=True), Column("load", wide=True), Column("TTFT", wide=True)),
            *(Column("ITL", wide=True), Column("why")),
        ),
        pools,
        empty="no deployment on this bus yet",
    ),
    TopTable(
        "budget",
        (
            *(Column("site"), Column("state"), Column("watts", right=True), Column("caps", right=True)),
            *(Column("drawn", right=True), Column("in words")),
        ),
        budgets,
        empty="no site on this bus yet",
    ),
    TopTable(
        "GPUs",
        (
            *(Column("node"), Column("GPU", right=True), Column("draws", right=True), Column("cap", right=True)),
            *(Column("most", right=True, wide=True), Column("model", wide=True), Column("deployment", wide=True)),
            *(Column("pool"), Column("pod", wide=True), Column("seen", right=True), Column("health"), Column("odd")),
        ),
        gpus,
        empty="no GPU has reported yet",
    ),
    TopTable(
        "decisions",
        (Column("UTC"), Column("about"), Column("who", wide=True), Column("decision")),
        decisions,
        reverse=True,
        empty="no decision in the last hour",
    ),
    TopTable(
        "agents",
        (
            *(Column("name"), Column("what"), Column("site", wide=True), Column("seen", right=True)),
            *(Column("lease", right=True), Column("decided", right=True), Column("applied", right=True)),
            *(Column("GPUs", right=True, wide=True), Column("drawn", right=True)),
            *(Column("caps", right=True, wide=True), Column("state")),
        ),
        agents,
        empty="no planner and no agent on this bus yet",
    ),
)
"""In the order of their keys."""


def header(shown: ShownParts, now: datetime, rows: int) -> list[str]:
    """The lines above the tables for a terminal of ``rows`` rows: who leads, the watts, and what is not well."""
    overview = shown.overview
    bus, leader = overview.get("bus", {}), overview.get("leader")
    read = bus.get("read", False)
    leads = f"  leader {leader}" if leader else "  no leader" if read else ""
    lines = [f"wattscale top  {now:%H:%M:%S} UTC{leads}"]
    if not bus.get("connected", True):
        away_s = age_s(instant(bus["since"]), now) or 0.0
        why = f": {bus['trouble']}" if bus["trouble"] else ""
        lines.append(f"! the bus is away for {age_words(away_s)}, and this is of before{why}")
    elif not read:
        lines.append("reading the bus")
    sites = sorted(shown.named("site"), key=lambda one: one[1]["held"] is not False)
    for site, part in sites[:MOST_SITES]:
        budget = "" if part["budget"] is None else f"budget {part['budget']:.0f} W, "
        drawn = f"caps {part['caps']} W, drawn {part['drawn']} W"
        lines.append(f"{site}: {budget}{drawn}: {HELD[part['held']]}")
    if len(sites) > MOST_SITES:
        lines.append(f"and {len(sites) - MOST_SITES} more sites: 2")
    alerts = [*overview.get("problems", ()), *overview.get("missed_targets", ())] if read else []
    most = max(1, rows // ROWS_PER_ALERT)
    lines += [f"! {alert}" for alert in alerts[:most]]
    if len(alerts) > most:
        lines.append(f"! and {len(alerts) - most} more: a")
    return lines


def answers(shown: ShownParts) -> str:
    """What is not well, what an operator should do, and the dashboard's questions with their answers."""
    overview = shown.overview
    blocks = [
        (title, overview.get(key, ()))
        for title, key in (("Not well", "problems"), ("Targets missed", "missed_targets"), ("To do", "hints"))
    ]
    blocks += [(one["question"], one["lines"]) for one in shown.parts.get("answers", {}).values()]
    return "\n\n".join("\n".join((title, *(f"    {line}" for line in lines))) for title, lines in blocks if lines)
