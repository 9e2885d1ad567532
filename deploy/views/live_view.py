"""What the views of a running site have in common: figures with their targets, pools, the bar of watts, a plain line.

Renders a ``SiteView`` and a few figures; keeps no state of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from bus_schemas import v1
from deploy.views.site_view import DeploymentSummary, SiteView
from deploy.views.words import amount


@dataclass(frozen=True, slots=True)
class DemoStatus:
    """Facts about the run that are not on the bus."""

    title: str
    hint: str
    load_s: float
    real_s: float
    problems: tuple[str, ...] = ()
    """What is not well now, one line each."""


def pool_cells(view: DeploymentSummary) -> list[tuple[str, str, str, str, str]]:
    """(pool, running, wanted, granted, cap) of each pool, as text."""
    record = view.record
    if record is None:
        return []
    rows = []
    for name, pool in record.pools.items():
        cap = f"{pool.cap_watts:.0f} W" if pool.cap_watts is not None else "-"
        rows.append((name, str(pool.current), str(pool.wanted), str(pool.granted), cap))
    return rows


def figure(record: v1.PlanRecord | None, name: str, unit: str) -> str:
    """An observed figure with its target, or the reason why it is missing."""
    if record is None:
        return "-"
    if name in record.observed:
        target = record.targets.get(name)
        aim = f" / {target:.0f}" if target is not None else ""
        return f"{amount(record.observed[name])}{aim} {unit}".rstrip()
    return f"missing ({record.missing.get(name, 'not seen yet')})"


def rate(record: v1.PlanRecord | None) -> str:
    """The observed load in requests per second, as text."""
    if record is None or "requests" not in record.observed or not record.observed.get("interval_s"):
        return figure(record, "requests", "requests")
    return f"{record.observed['requests'] / record.observed['interval_s']:.3g} req/s"


def plain_line(picture: SiteView, run: DemoStatus) -> str:
    """The state of the run in one line."""
    parts = [f"{run.real_s:6.0f}s load {run.load_s:7.0f}s"]
    for view in picture.deployments.values():
        record = view.record
        parts.append(rate(record))
        parts += [f"{name} {running}->{granted} at {cap}" for name, running, _, granted, cap in pool_cells(view)]
        parts.append(f"TTFT {figure(record, 'ttft_ms', 'ms')}, ITL {figure(record, 'itl_ms', 'ms')}")
    budget = picture.budget_watts
    limit = f" of {budget:.0f} W" if budget is not None else ""
    parts.append(f"{picture.drawn_watts:.0f} W drawn, {picture.enforced_watts:.0f} W capped{limit}")
    parts += [f"! {problem}" for problem in run.problems]
    return " | ".join(parts)


def watts_bar(picture: SiteView, width: int = 50) -> str:
    """Drawn, capped and budget watts as one bar: `=` drawn, `-` capped, space up to the budget."""
    budget = picture.budget_watts or picture.enforced_watts
    if not budget:
        return "watts: no telemetry yet"
    drawn = min(width, round(width * picture.drawn_watts / budget))
    capped = min(width, round(width * picture.enforced_watts / budget))
    bar = "=" * drawn + "-" * max(0, capped - drawn)
    return (
        f"watts [{bar:<{width}}] {picture.drawn_watts:.0f} drawn, {picture.enforced_watts:.0f} capped,"
        f" {budget:.0f} budget"
    )
