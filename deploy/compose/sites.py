"""Sites of the settings as the core wants them: budgets in milliwatts, schedules with loaded time zones."""

from __future__ import annotations

from collections.abc import Iterable
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from planner.domain.config import Covers, Shortage, SiteConfig
from planner.domain.daily_window import BudgetSchedule, BudgetWindow, ReplicaSchedule, ReplicaWindow
from planner.domain.demand import Weights
from planner.domain.ids import DeploymentId, SiteId
from planner.domain.units import Milliwatts, mw_from_watts
from planner.runtime.config.settings import ReplicaScheduleSettings, ScheduleSettings, SiteSettings

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def site(name: str, block: SiteSettings, deployments: Iterable[str] = ()) -> SiteConfig:
    """One site; ``deployments`` are those that draw from its budget. Raises ValueError in one line."""
    return SiteConfig(
        site=SiteId(name),
        budget_mw=mw_from_watts(block.budget_watts),
        host_overhead_mw_per_node=mw_from_watts(block.host_overhead_watts_per_node),
        margin_mw=mw_from_watts(block.margin_watts),
        lease_s=block.lease_s,
        settle_s=block.settle_s,
        clock_skew=block.clock_skew,
        flight_s=block.flight_s,
        answer_s=block.answer_s,
        stale_s=block.stale_s,
        compliance_s=block.compliance_s,
        highest_gpu_mw=mw_from_watts(block.highest_gpu_watts),
        most_gpus_per_node=block.most_gpus_per_node,
        smallest_step_mw=mw_from_watts(block.smallest_step_watts),
        fallback_mw=_mw(block.fallback_watts),
        smallest_budget_mw=_mw(block.smallest_budget_watts),
        expected_gpus=block.expected_gpus,
        expected_nodes=block.expected_nodes,
        covers=Covers(block.covers),
        deployments=frozenset(map(DeploymentId, deployments)),
        shortage=Shortage(block.shortage),
        weights=Weights(**block.weights.model_dump()),
        schedule=_schedule(block.schedule) if block.schedule else None,
        nodes=block.nodes,
    )


def unsafe(block: SiteSettings) -> list[str]:
    """Numbers that cannot keep the promise of the budget together, one line each."""
    found = []
    budgets = [block.budget_watts, *(w.budget_watts for w in (block.schedule.windows if block.schedule else ()))]
    smallest = min([*budgets, *([block.smallest_budget_watts] if block.smallest_budget_watts else [])])
    if block.smallest_budget_watts is not None and block.smallest_budget_watts > min(budgets):
        found.append(
            f"smallest_budget_watts {block.smallest_budget_watts:g} is above a budget that is set, {min(budgets):g}"
        )
    if block.lease_s <= block.settle_s + 2 * block.flight_s:
        found.append(
            f"lease_s {block.lease_s:g} is too short: a cap would run out before its renewal could arrive and settle "
            f"(more than settle_s + 2 x flight_s = {block.settle_s + 2 * block.flight_s:g} s)"
        )
    if block.fallback_watts is not None and block.expected_gpus is not None:
        fallen = block.fallback_watts * block.expected_gpus + block.margin_watts
        if fallen > smallest:
            found.append(
                f"fallback_watts {block.fallback_watts:g} of {block.expected_gpus} GPUs come to {fallen:g} W: "
                f"more than the smallest budget, {smallest:g} W"
            )
    return found


def _mw(watts: float | None) -> Milliwatts | None:
    return None if watts is None else mw_from_watts(watts)


def _schedule(block: ScheduleSettings) -> BudgetSchedule:
    windows = tuple(
        BudgetWindow(_minutes(w.start), _minutes(w.end), mw_from_watts(w.budget_watts), _days(w.weekdays))
        for w in block.windows
    )
    return BudgetSchedule(windows, _zone(block.zone))


def replica_schedule(block: ReplicaScheduleSettings) -> ReplicaSchedule:
    """A pool's bounds over the day. Raises ValueError in one line."""
    windows = tuple(
        ReplicaWindow(_minutes(w.start), _minutes(w.end), w.min_replicas, w.max_replicas, _days(w.weekdays))
        for w in block.windows
    )
    return ReplicaSchedule(windows, _zone(block.zone))


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"schedule.zone: no time zone {name!r}; write one as Europe/Oslo") from None


def _days(names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(WEEKDAYS.index(name) for name in names)


def _minutes(text: str) -> int:
    hours, colon, minutes = text.partition(":")
    if colon and hours.isdigit() and minutes.isdigit() and len(minutes) == 2:
        total = int(hours) * 60 + int(minutes)
        if int(minutes) < 60 and total <= 24 * 60:
            return total
    raise ValueError(f"schedule: {text!r} is not a time of day; write HH:MM, 00:00 to 24:00")
