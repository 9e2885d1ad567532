"""The steps of the tour, in order: what to look at, the command that shows or does it, and what each one does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bus_schemas import v1
from deploy.demo.prepare import SCALE_DOWN_WINDOW_S
from deploy.tour.stage import TourStage
from deploy.tour.step_figures import most_gpus, observed_mean
from deploy.views.freshness import silent
from deploy.views.words import amount

BASE_PER_S, SPIKE_PER_S, LOW_PER_S = 3.0, 9.0, 0.5
LONG_FACTOR = 6.0
TICKS = 4
"""Ticks that measure a step once it has settled."""
CUT_OF_BUDGET, ABOVE_CUT = 0.5, 1.15
SETTLED_LOAD_S = 60.0
"""Seconds of load beyond the window in which no other decision followed."""
PLANNERS = 2
"""That compete for the lease from the start."""


@dataclass(frozen=True, slots=True)
class TourStep:
    """``commands``: from a second terminal; ``act`` returns what happened, in words."""

    name: str
    title: str
    look: str
    commands: Callable[[TourStage], tuple[str, ...]]
    act: Callable[[TourStage], Awaitable[list[str]]]


def _id(decision: v1.ScalingDecision | None) -> int:
    return decision.decision_id if decision is not None else -1


async def _baseline(stage: TourStage) -> list[str]:
    # Engines at their lowest caps would be slow, and the planner would learn that from them.
    await stage.until(lambda: _raised(stage), "caps above the lowest ones")
    stage.phase(BASE_PER_S)
    await stage.scaled(lambda _: True, "a first decision about replicas", -1)
    quiet = timedelta(seconds=(SCALE_DOWN_WINDOW_S + SETTLED_LOAD_S) / stage.run.options.speed)
    # A load between two counts goes on changing them: the walk does not wait for its end.
    enough = datetime.now(UTC) + 2 * quiet
    await stage.until(lambda: _settled(stage, quiet, enough), "decisions that are carried out")
    since = datetime.now(UTC)
    await stage.measured(TICKS, since)
    seen = stage.watched.records_since(since)
    seconds, isl = sum(one.observed["interval_s"] for one in seen), observed_mean(seen, "isl_tokens") or 0.0
    rate = sum(one.observed.get("requests", 0.0) for one in seen) / seconds if seconds > 0 else 0.0
    return [f"the planner sees {amount(rate)} requests/s of {amount(isl)} tokens, and sized both pools for them"]


def _raised(stage: TourStage) -> bool:
    nodes = stage.watched.picture.nodes
    least = sum(one.least_watts for one in nodes.values())
    return set(nodes) == set(stage.run.nodes) and stage.watched.picture.enforced_watts > least > 0


def _settled(stage: TourStage, quiet: timedelta, enough: datetime) -> bool:
    """Whether the newest decision is carried out, and no other followed it for so long, or the time is over."""
    newest, now = stage.newest_decision(), datetime.now(UTC)
    return newest is not None and stage.watched.carried_out(newest) and (now - newest.time > quiet or now > enough)


async def _spike(stage: TourStage) -> list[str]:
    before = stage.newest_decision()
    stage.phase(SPIKE_PER_S)
    had = most_gpus(before) if before is not None else 0
    decision = await stage.scaled(lambda one: most_gpus(one) > had, "a decision for more workers", _id(before))
    since = datetime.now(UTC)
    await stage.measured(TICKS, since)
    found = [f"three times the load: decision #{decision.decision_id} holds {most_gpus(decision)} GPUs, {had} before"]
    forecast = stage.watched.records[-1].forecasts.get("request_rate_per_s")
    if forecast is not None:
        found.append(
            f"forecast by {forecast.model}: {amount(forecast.mean)} requests/s in {amount(forecast.horizon_s)} s,"
            f" between {amount(forecast.lower)} and {amount(forecast.upper)}"
        )
    return found


async def _long(stage: TourStage) -> list[str]:
    before, since = stage.newest_decision(), datetime.now(UTC)
    isl = observed_mean(stage.watched.records[-TICKS:], "isl_tokens") or 0.0
    stage.phase(BASE_PER_S, LONG_FACTOR)
    await stage.until(
        lambda: (observed_mean(stage.watched.records_since(since)[-1:], "isl_tokens") or 0.0) > 2.0 * isl,
        "longer prompts in the planner's readings",
    )
    decision = await stage.scaled(lambda _: True, "a decision for the longer prompts", _id(before))
    since = datetime.now(UTC)
    await stage.measured(TICKS, since)
    now = observed_mean(stage.watched.records_since(since), "isl_tokens") or 0.0
    counts = " ".join(f"{name}={pool.replicas}" for name, pool in decision.pools.items())
    sized = f"decision #{decision.decision_id} sized prefill and decode apart: {counts}"
    return [f"prompts grew from {amount(isl)} to {amount(now)} tokens; {sized}"]


async def _low(stage: TourStage) -> list[str]:
    before, drawn = stage.newest_decision(), stage.watched.picture.drawn_watts
    stage.phase(LOW_PER_S)
    had = most_gpus(before) if before is not None else 0
    decision = await stage.scaled(lambda one: most_gpus(one) < had, "a decision for fewer workers", _id(before))
    await stage.measured(TICKS, datetime.now(UTC))
    less = f"decision #{decision.decision_id} gave {had - most_gpus(decision)} of {had} GPUs back"
    return [
        f"{less}, after a window of {SCALE_DOWN_WINDOW_S:g} s of load in which the lower need had to last",
        f"the GPUs drew {drawn:,.0f} W before, and {stage.watched.picture.drawn_watts:,.0f} W now",
    ]


def _cut_watts(stage: TourStage) -> float:
    return round(CUT_OF_BUDGET * stage.run.budget_watts)


def _budget_words(stage: TourStage) -> tuple[str, ...]:
    return ("budget", "set", f"{_cut_watts(stage):g}", "--site", stage.site, "--wait", "--reason", "tour")


async def _budget(stage: TourStage) -> list[str]:
    before, decision = stage.run.budget_watts, stage.newest_decision()
    had = most_gpus(decision) if decision is not None else 0
    stage.phase(SPIKE_PER_S)
    await stage.scaled(lambda one: most_gpus(one) > had, "workers for a load that needs the watts", _id(decision))
    await stage.until(
        lambda: stage.watched.picture.enforced_watts > ABOVE_CUT * _cut_watts(stage),
        "caps above what the budget is cut to",
    )
    caps, since = stage.watched.picture.enforced_watts, datetime.now(UTC)
    printed = await stage.command(*_budget_words(stage))
    await stage.measured(TICKS, datetime.now(UTC))
    now, site = stage.watched.picture.enforced_watts, (await stage.figures(since)).site
    orders = [] if site is None else [one for one in site.orders if one.complied_s is not None]
    found = [f"it printed: {line}" for line in printed.splitlines()]
    found.append(f"caps came to {caps:,.0f} W before the cut, and to {now:,.0f} W after it")
    found += [f"in force {one.complied_s:.2f} s after the command was stored" for one in orders[-1:]]
    stage.phase(BASE_PER_S)
    await stage.command("budget", "release", "--site", stage.site)
    await stage.until(
        lambda: (stage.watched.picture.budget_of(stage.site) or (0.0,))[0] >= before, "the old budget in force again"
    )
    return [*found, f"then `wattscale budget release`: {before:,.0f} W again"]


async def _planner(stage: TourStage) -> list[str]:
    await stage.until(lambda: _leads(stage), "a planner that leads")
    lease = stage.watched.picture.lease
    assert lease is not None  # noqa: S101 - waited for
    old = lease.holder
    epoch, caps = _epoch(stage), stage.watched.picture.enforced_watts
    pid = stage.children.pid(old)
    killed_at = datetime.now(UTC)
    await stage.children.kill(old)
    took_s = await stage.until(lambda: _leads_another(stage, old, epoch), "another planner that leads and decides")
    term = stage.watched.leases[-1]
    await stage.measured(TICKS, term.time)
    again = await stage.start_planner(f"planner-{PLANNERS}")
    led_s, now = (term.time - killed_at).total_seconds(), stage.watched.picture.enforced_watts
    return [
        f"process {pid} ({old}) got SIGKILL; {led_s:.1f} s later, its lease over, {term.holder} took the lead",
        f"it decided {took_s:.1f} s after the kill, in epoch {_epoch(stage)}: what epoch {epoch} sends late is refused",
        f"agents kept their caps meanwhile: {caps:,.0f} W before, {now:,.0f} W now",
        f"{again} stands by, as the next one to lead",
    ]


def _leads(stage: TourStage) -> bool:
    lease = stage.watched.picture.lease
    return lease is not None and lease.holder in stage.children.names()


def _epoch(stage: TourStage) -> int:
    return max((one.decision.epoch for one in stage.watched.picture.nodes.values() if one.decision), default=0)


def _leads_another(stage: TourStage, old: str, epoch: int) -> bool:
    lease = stage.watched.picture.lease
    return lease is not None and lease.holder != old and not lease.released and _epoch(stage) > epoch


def _victim(stage: TourStage) -> str:
    return stage.run.nodes[-1]


def _agent_name(stage: TourStage) -> str:
    return next(name for name in stage.children.names() if name.startswith(f"agent-{_victim(stage)}"))


async def _agent(stage: TourStage) -> list[str]:
    node, name = _victim(stage), _agent_name(stage)
    await stage.until(lambda: node in stage.watched.picture.nodes, f"a report of {node}")
    view = stage.watched.picture.nodes[node]
    boot, pid = (view.telemetry.boot if view.telemetry else ""), stage.children.pid(name)
    await stage.children.kill(name)
    silent_s = await stage.until(
        lambda: node in silent(stage.watched.picture, datetime.now(UTC)), f"{node} counted as silent"
    )
    picture, held = stage.watched.picture, view.charged_watts
    charged, budget = sum(one.charged_watts for one in picture.nodes.values()), picture.budget_watts or 0.0
    await stage.start_agent(node)
    back_s = await stage.until(lambda: _reports_anew(stage, node, boot), f"a report of the new agent of {node}")
    return [
        f"process {pid} ({name}) got SIGKILL; {silent_s:.0f} s later {node} counted as silent; its limits stayed",
        f"its {held:,.0f} W stayed charged: {charged:,.0f} W in all, budget {budget:,.0f} W",
        f"a new agent reported {back_s:.1f} s after its start, and found {view.enforced_watts:,.0f} W in force",
    ]


def _reports_anew(stage: TourStage, node: str, boot: str) -> bool:
    view = stage.watched.picture.nodes[node]
    return view.telemetry is not None and view.telemetry.boot not in ("", boot)


def _leader_pid(stage: TourStage) -> str:
    lease = stage.watched.picture.lease
    return str(stage.children.pid(lease.holder)) if lease is not None and _leads(stage) else "PID"


STEPS = (
    TourStep(
        "baseline",
        f"Baseline: {BASE_PER_S:g} requests a second",
        "replicas of both pools, TTFT and ITL beside their targets, caps below the budget, and decisions by their ids",
        lambda stage: ("wattscale status", f"wattscale explain {stage.deployment}"),
        _baseline,
    ),
    TourStep(
        "spike",
        f"Spike: the load goes to {SPIKE_PER_S:g} requests a second",
        "the forecast, the decision with more workers and its reason, and how its watts are found within the budget",
        lambda stage: ("wattscale decisions --follow", f"wattscale explain {stage.deployment}"),
        _spike,
    ),
    TourStep(
        "long-context",
        f"Long context: prompts {LONG_FACTOR:g} times as long, at {BASE_PER_S:g} requests a second",
        "prefill and decode change apart: long prompts are work for prefill, and room in the KV cache for decode",
        lambda stage: (f"wattscale explain {stage.deployment}", "wattscale top"),
        _long,
    ),
    TourStep(
        "low-load",
        f"Low load: {LOW_PER_S:g} requests a second",
        "replicas go down only after the stabilization window, and the watts drawn with them",
        lambda stage: ("wattscale status", f"wattscale explain {stage.deployment}"),
        _low,
    ),
    TourStep(
        "budget-cut",
        "A budget cut, as in a grid emergency",
        "caps go down first, and the command answers when their sum is within the new budget",
        lambda stage: (f"wattscale {' '.join(_budget_words(stage))}", "wattscale budget show"),
        _budget,
    ),
    TourStep(
        "planner-killed",
        "The leading planner is killed",
        "the lease runs out, the planner that stands by leads in a new epoch, and no cap moves in between",
        lambda stage: (f"kill -9 {_leader_pid(stage)}", "wattscale status"),
        _planner,
    ),
    TourStep(
        "agent-killed",
        "The power agent of a node is killed",
        "the GPUs keep their limits, the node becomes silent, and its watts are given to nobody",
        lambda stage: (f"kill -9 {stage.children.pid(_agent_name(stage))}", "wattscale verify --wait 0"),
        _agent,
    ),
)
