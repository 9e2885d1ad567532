"""What the golden days are made of: deployments of every kind, sites, and scripts of operators and failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from planner.domain.config import (
    DeploymentConfig,
    Fallback,
    OperationMode,
    PlannerConfig,
    PoolConfig,
    ScalingPolicy,
    ScalingRules,
    SiteConfig,
    SizingMode,
    WaitFor,
)
from planner.domain.daily_window import ReplicaSchedule, ReplicaWindow
from planner.domain.ids import DeploymentId, NodeId, PoolId, SiteId
from planner.domain.observation import BudgetCommand, DeploymentCommand, NodeCommand
from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.domain.profile import DecodeProfile, PrefillProfile, Profile
from planner.domain.request import Request
from planner.domain.units import Milliwatts, mw_from_watts
from tests.goldens.fleet import GoldenFleet

INTERVAL_S = 30.0
ROW, ANNEX = SiteId("row"), SiteId("annex")
PREFILL, DECODE, BOTH = PoolId("prefill"), PoolId("decode"), PoolId("all")
CURVE = PowerCurve(
    p_s_mw=140_000, p_u_mw=600_000, alpha=0.6, idle_mw=80_000, min_mw=200_000, max_mw=700_000, useful_mw=350_000
)
RATES = {
    DeploymentId(name): rate
    for name, rate in (
        ("chat", 14.0), ("batch", 9.0), ("code", 10.0), ("annex", 8.0), ("shadow", 6.0), ("search", 20.0),
        ("voice", 16.0), ("night", 12.0), ("mono", 12.0), ("queue", 15.0), ("big", 18.0),
    )
}  # fmt: skip
"""Requests a second at the middle of the swing."""
SLEEPERS = {DeploymentId("night"), DeploymentId("batch")}
"""Deployments without any request for a part of the day."""


@dataclass
class Orders:
    """Operators' orders that the planner has not seen yet."""

    budgets: list[BudgetCommand] = field(default_factory=list)
    deployments: list[DeploymentCommand] = field(default_factory=list)
    nodes: list[NodeCommand] = field(default_factory=list)


Event: TypeAlias = Callable[[Any], None]
"""Something that happens to a ``Day`` just before a tick."""
Script: TypeAlias = Mapping[int, tuple[Event, ...]]


def _profile() -> Profile:
    """TTFT 30 ms + 50 us a token; ITL 5 ms + 0.15 a sequence + 3e-5 a token."""
    isl = (100.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0)
    ttft = tuple(30.0 + 0.05 * x for x in isl)
    points = [(usage, context) for context in (500.0, 4000.0, 12000.0) for usage in (0.05, 0.3, 0.6, 0.9)]
    kv = 400_000
    itl = [5.0 + 0.15 * usage * kv / context + 3e-5 * usage * kv for usage, context in points]
    return Profile(
        "golden",
        PrefillProfile(isl, ttft, tuple(x / t * 1000.0 for x, t in zip(isl, ttft, strict=True))),
        DecodeProfile(
            tuple(usage for usage, _ in points),
            tuple(context for _, context in points),
            tuple(itl),
            tuple(use * kv / context / ms * 1000.0 for (use, context), ms in zip(points, itl, strict=True)),
            kv,
        ),
        max_num_seqs=256,
    )


PROFILE = _profile()


def pool(name: PoolId, role: Role | None = None, **changes: Any) -> PoolConfig:
    """One pool of single-GPU workers that start within a minute and a half."""
    down = ScalingRules(stabilization_window_s=120.0)
    base = PoolConfig(name, role or Role(name), 1, CURVE, max_replicas=10, startup_s=75.0, scale_down=down)
    return replace(base, **changes)


def deployment(name: str, site: SiteId = ROW, pools: tuple[PoolConfig, ...] = (), **changes: Any) -> DeploymentConfig:
    """A deployment of a prefill and a decode pool, unless it names others."""
    chosen = {each.pool: each for each in pools or (pool(PREFILL), pool(DECODE))}
    base = DeploymentConfig(DeploymentId(name), site, chosen, PROFILE, ttft_ms=700.0, itl_ms=30.0)
    return replace(base, scaling_timeout_s=600.0, **changes)


def _planner(deployments: tuple[DeploymentConfig, ...], *sites: SiteConfig) -> PlannerConfig:
    return PlannerConfig({each.deployment: each for each in deployments}, {s.site: s for s in sites}, INTERVAL_S)


# -- what may happen


def order(name: str, action: str, **replicas: int) -> Event:
    """An operator's word on a deployment; its sequence is the tick's time, so that later orders are newer."""

    def event(day: Any) -> None:
        wanted = {PoolId(each): count for each, count in replicas.items()}
        day.orders.deployments.append(DeploymentCommand(DeploymentId(name), action, wanted, round(day.now_s), "golden"))

    return event


def budget(site: SiteId, watts: int | None, ramp_s: float = 0.0, lasts_s: float | None = None) -> Event:
    """A budget for a site; None releases it."""

    def event(day: Any) -> None:
        until_s = None if lasts_s is None else day.now_s + lasts_s
        milliwatts = None if watts is None else mw_from_watts(watts)
        day.orders.budgets.append(
            BudgetCommand(site, milliwatts, day.now_s, until_s, ramp_s, round(day.now_s), "golden")
        )

    return event


def node_command(name: str, action: str) -> Event:
    """An operator's word on a node."""

    def event(day: Any) -> None:
        day.orders.nodes.append(NodeCommand(NodeId(name), action, round(day.now_s), "golden", day.now_s))

    return event


def silent(name: str, *, on: bool = True) -> Event:
    """A node is cut off, or back."""

    def event(day: Any) -> None:
        next(node for node in day.fleet.nodes if node.node == name).silent = on

    return event


def agent_restart(name: str) -> Event:
    """A new agent process that answers at once with what it finds."""

    def event(day: Any) -> None:
        node = next(node for node in day.fleet.nodes if node.node == name)
        node.boot += 1
        day.acks.append(node.answer(day.state.epoch, day.now_s))

    return event


def gpu(name: str, *, healthy: bool) -> Event:
    """A GPU is lost, or back at its default limit after a reset; its agent reports it."""

    def event(day: Any) -> None:
        for node in day.fleet.nodes:
            for card in node.cards:
                if card.gpu == name:
                    card.healthy, card.reset, card.requested_mw = healthy, healthy, CURVE.max_mw
                    day.acks.append(node.answer(day.state.epoch, day.now_s))

    return event


def by_hand(name: str, pool_name: PoolId, count: int) -> Event:
    """Somebody else scales a pool."""

    def event(day: Any) -> None:
        config = day.config.deployments[DeploymentId(name)]
        day.fleet.scale(config, pool_name, count, day.now_s)

    return event


def dark(name: str, *, on: bool = True) -> Event:
    """A deployment's metrics are missing, or back."""

    def event(day: Any) -> None:
        (day.dark.add if on else day.dark.discard)(DeploymentId(name))

    return event


def absent(name: str, *, on: bool = True) -> Event:
    """A deployment is not observed at all, or again."""

    def event(day: Any) -> None:
        (day.absent.add if on else day.absent.discard)(DeploymentId(name))

    return event


def restart(day: Any) -> None:
    """The planner is replaced by a new leader."""
    day.restart()


# -- the days


def scarce() -> tuple[PlannerConfig, GoldenFleet, Script]:
    """Two sites with fewer watts than their GPUs could draw, four sizing modes, priorities, and every trouble."""
    sites = (
        SiteConfig(
            ROW,
            Milliwatts(8_400_000),
            host_overhead_mw_per_node=Milliwatts(150_000),
            margin_mw=Milliwatts(50_000),
            smallest_budget_mw=Milliwatts(5_600_000),
            expected_gpus=18,
            expected_nodes=3,
            nodes=("r*",),
        ),
        SiteConfig(ANNEX, Milliwatts(2_000_000), lease_s=20.0, fallback_mw=Milliwatts(260_000), nodes=("a*",)),
    )
    deployments = (
        deployment("chat", priority=1),
        deployment(
            "batch", sizing=SizingMode.LOAD, pools=(pool(PREFILL, min_replicas=0), pool(DECODE, min_replicas=0))
        ),
        deployment("code", sizing=SizingMode.CLASSIC, predictor="constant", max_gpus=7),
        deployment(
            "annex", site=ANNEX, sizing=SizingMode.SLA_LOAD, pools=(pool(BOTH, Role.AGGREGATED, max_replicas=4),)
        ),
    )
    script: dict[int, tuple[Event, ...]] = {
        10: (order("chat", "pin", prefill=3, decode=4),),
        16: (order("chat", "release"),),
        20: (budget(ROW, 6200, ramp_s=90.0),),
        30: (budget(ROW, None), budget(ANNEX, 1500, lasts_s=600.0)),
        37: (order("code", "pause"), gpu("r1-g2", healthy=False)),
        44: (order("code", "resume"),),
        47: (gpu("r1-g2", healthy=True),),
        55: (silent("r2"),),
        63: (silent("r2", on=False),),
        70: (agent_restart("r1"), agent_restart("a1")),
        75: (by_hand("chat", DECODE, 1),),
        85: (restart,),
        92: (budget(ROW, 5600),),
        100: (budget(ROW, 9000),),
        107: (dark("chat"), absent("annex")),
        116: (dark("chat", on=False), absent("annex", on=False)),
        125: (silent("r3"),),
        127: (node_command("r3", "remove"),),
        137: (silent("r3", on=False), node_command("r3", "restore")),
        150: (budget(ROW, 3000),),
        156: (budget(ROW, None), gpu("a1-g0", healthy=False)),
        165: (gpu("a1-g0", healthy=True), order("annex", "pin", all=3)),
        172: (order("annex", "release"), restart),
        180: (silent("r1"), silent("r2"), silent("r3")),
        183: (silent("r1", on=False), silent("r2", on=False), silent("r3", on=False)),
        195: (order("batch", "pin", prefill=9, decode=9),),
        205: (order("batch", "release"), by_hand("code", PREFILL, 4)),
        215: (budget(ROW, 7000, ramp_s=60.0, lasts_s=300.0),),
    }
    row = GoldenFleet.of(CURVE, ("r1", "r2", "r3"), 6)
    row.nodes += GoldenFleet.of(CURVE, ("a1",), 4).nodes
    return _planner(deployments, *sites), row, script


def plenty() -> tuple[PlannerConfig, GoldenFleet, Script]:
    """All watts that there could be, workers of two GPUs, one deployment that is only watched, scale-down rules."""
    site = SiteConfig(ROW, Milliwatts(24 * 700_000), expected_gpus=24)
    wide = (pool(PREFILL, gpus_per_replica=2, max_replicas=5), pool(DECODE, gpus_per_replica=2, max_replicas=6))
    careful = ScalingRules(60.0, (ScalingPolicy("Pods", 1, 60.0), ScalingPolicy("Percent", 50, 120.0)), "Min", 0.1)
    deployments = (
        deployment("search", pools=wide),
        deployment("shadow", mode=OperationMode.ADVISORY),
        deployment("voice", pools=(pool(PREFILL, scale_up=careful), pool(DECODE, scale_down=careful)), itl_ms=18.0),
    )
    script: dict[int, tuple[Event, ...]] = {
        15: (by_hand("voice", DECODE, 6),),
        25: (gpu("p2-g1", healthy=False),),
        35: (order("search", "pause"),),
        42: (order("search", "resume"), gpu("p2-g1", healthy=True)),
        60: (restart,),
        75: (budget(ROW, 9000), dark("voice")),
        82: (budget(ROW, None), dark("voice", on=False)),
        95: (agent_restart("p1"), silent("p3")),
        102: (silent("p3", on=False),),
    }
    return _planner(deployments, site), GoldenFleet.of(CURVE, ("p1", "p2", "p3"), 8), script


def unpowered() -> tuple[PlannerConfig, GoldenFleet, Script]:
    """No watts at all: every sizing mode and forecast, limits of every kind, fall-backs, schedules, a warm start."""
    few = pool(PREFILL, fallback_replicas=3, max_step=1)
    hours = ReplicaSchedule((ReplicaWindow(60, 120, 3, 5), ReplicaWindow(150, 300, None, 4)))
    tight = ScalingRules(0.0, (ScalingPolicy("Pods", 2, 90.0),))
    never = ScalingRules(select="Disabled")
    history = tuple(Request(0.5 * n, 1000 + n % 700, 150 + n % 50) for n in range(7200))
    deployments = (
        deployment("chat", predictor="blend+day", history=history, fallback=Fallback.MAX_SEEN, max_gpus=9),
        deployment("batch", sizing=SizingMode.LOAD, pools=(few, pool(DECODE, scale_up=tight)), predictor="ewma"),
        deployment("code", sizing=SizingMode.CLASSIC, predictor="holt", pools=(few, pool(DECODE, fallback_replicas=4)),
                   fallback=Fallback.REPLICAS),
        deployment("voice", sizing=SizingMode.SLA_LOAD, predictor="kalman+log1p", wait_for=WaitFor.READY),
        deployment("night", predictor="ewma", pools=(pool(PREFILL, min_replicas=0), pool(DECODE, min_replicas=0))),
        deployment("mono", pools=(pool(BOTH, Role.AGGREGATED, schedule=hours),), correction=False),
        deployment("queue", ttft_ms=45.0, itl_ms=5.5, pools=(pool(PREFILL, scale_up=never), pool(DECODE, max_step=2))),
        deployment("big", mode=OperationMode.PAUSED),
    )  # fmt: skip
    script: dict[int, tuple[Event, ...]] = {
        50: (order("chat", "pin", prefill=2, decode=9), order("voice", "pause")),
        66: (order("chat", "release"), order("voice", "resume")),
        90: (dark("chat"), dark("code"), dark("batch")),
        110: (dark("chat", on=False), dark("code", on=False), dark("batch", on=False)),
        140: (by_hand("mono", BOTH, 6),),
        200: (restart,),
        260: (absent("night"),),
        280: (absent("night", on=False), by_hand("queue", DECODE, 1)),
        340: (order("code", "pin", prefill=50, decode=0),),
        352: (order("code", "release"), restart),
        420: (dark("voice"), dark("mono")),
        445: (dark("voice", on=False), dark("mono", on=False)),
        520: (order("night", "pause"),),
        560: (order("night", "resume"),),
    }
    return _planner(deployments), GoldenFleet(CURVE, []), script


BUILT: Mapping[str, Callable[[], tuple[PlannerConfig, GoldenFleet, Script]]] = {
    "scarce": scarce,
    "plenty": plenty,
    "unpowered": unpowered,
}
