"""Days of load and trouble through ``step`` and ``react``: one line a tick, for the tick and what came after it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from planner.core.intake import initial_state
from planner.core.state import Flow, PlannerState
from planner.core.step import react, step
from planner.domain.config import DeploymentConfig, PlannerConfig
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.observation import (
    DeploymentObservation,
    Observation,
    PoolObservation,
    PowerAckSeen,
    StoredCaps,
)
from planner.domain.plan import Plan, PowerDecision, ScalingDecision
from planner.domain.pool import Role
from planner.domain.reading import Missing, MissingReason, Sample
from tests.goldens import shown, sites
from tests.goldens.fleet import GoldenFleet
from tests.goldens.shown import Shown
from tests.goldens.sites import INTERVAL_S, Event, Orders
from tests.goldens.source import Line

BETWEEN_S = (0.5, 3.0, 8.0, 20.0)
"""When the planner reacts after a tick."""
TICKS_A_DAY = 160
GONE = (MissingReason.STALE, MissingReason.NO_DATA, MissingReason.COUNTER_RESET, MissingReason.UNREACHABLE)


@dataclass
class Day:
    """One planner, its fleet, its load, and a script of what happens at which tick."""

    name: str
    config: PlannerConfig
    fleet: GoldenFleet
    script: Mapping[int, tuple[Event, ...]]
    met: Counter[str] = field(default_factory=Counter)
    orders: Orders = field(default_factory=Orders)
    acks: list[PowerAckSeen] = field(default_factory=list)
    last_power: dict[str, tuple[PowerDecision, float]] = field(default_factory=dict)
    last_scaling: dict[DeploymentId, tuple[ScalingDecision, float]] = field(default_factory=dict)
    now_s: float = 0.0
    dark: set[DeploymentId] = field(default_factory=set)
    """Deployments whose metrics are all missing."""
    absent: set[DeploymentId] = field(default_factory=set)
    """Deployments that were not observed at all."""

    def __post_init__(self) -> None:
        self.chance = Random(f"golden {self.name}")
        self.state: PlannerState = initial_state(self.config, 1, 0.0, (), ())
        for config in self.config.deployments.values():
            for pool in config.pools:
                self.fleet.scale(config, pool, config.pools[pool].min_replicas, -1000.0)

    def lines(self, ticks: int) -> Iterator[Line]:
        """One line a tick, then one for each reason that was met, with how often."""
        for tick in range(ticks):
            self.now_s = tick * INTERVAL_S
            for event in self.script.get(tick, ()):
                event(self)
            seen = {name: self._load(config, tick) for name, config in self.config.deployments.items()}
            seen = {name: load for name, load in seen.items() if name not in self.absent}
            parts = [self._step(Observation(seen, **self._around(telemetry=tick % 7 != 3)))]
            for after_s in BETWEEN_S:
                self.now_s = tick * INTERVAL_S + after_s
                parts.append(self._react())
            # A tick's line holds each part of the step and of all that followed it.
            yield Line(f"tick {tick}", tuple(zip(*parts, strict=True)))
        for code in sorted(self.met):
            yield Line(f"met {code}", (None, self.met[code], None))

    def restart(self) -> None:
        """A new leader that knows only what the streams hold."""
        last = [
            (name, Flow(order.decision_id, dict(order.replicas), self.fleet.carried_out.get(name, -1), at_s))
            for name, (order, at_s) in self.last_scaling.items()
        ]
        stored = [
            StoredCaps(
                order.node,
                order.decision_id,
                {cap.gpu: cap.setpoint for cap in order.caps},
                {cap.gpu: cap.charged_mw for cap in order.caps if cap.charged_mw is not None},
                at_s,
            )
            for order, at_s in self.last_power.values()
        ]
        self.state = initial_state(self.config, self.state.epoch + 1, self.now_s, last, stored)

    # -- the planner's turn

    def _step(self, observation: Observation) -> tuple[Shown, Shown, Shown]:
        self.state, decided = step(self.state, observation, self.config, self.config.clock(self.now_s))
        return self._carried(decided)

    def _react(self) -> tuple[Shown, Shown, Shown]:
        around = self._around(telemetry=self.chance.random() < 0.5)
        self.state, decided = react(self.state, Observation(**around), self.config, self.config.clock(self.now_s))
        return self._carried(decided)

    def _around(self, *, telemetry: bool) -> dict[str, Any]:
        """All that is seen besides the load. Orders given are seen once, acknowledgements in the order of arrival."""
        self.fleet.advance(self.config.deployments.values(), self.now_s)
        acks, self.acks = tuple(self.acks), []
        orders, self.orders = self.orders, Orders()
        return {
            "nodes": self.fleet.telemetry(self.now_s) if telemetry else {},
            "scaling_acks": self.fleet.scaling_acks(),
            "power_acks": acks,
            "budget_commands": tuple(orders.budgets),
            "deployment_commands": tuple(orders.deployments),
            "node_commands": tuple(orders.nodes),
        }

    def _carried(self, decided: Plan) -> tuple[Shown, Shown, Shown]:
        self.met.update(shown.codes(decided))
        curve = self.fleet.curve
        for order in decided.power:
            self.last_power[order.node] = (order, self.now_s)
            node = next(node for node in self.fleet.nodes if node.node == order.node)
            lost = self.chance.random() < 0.02
            ack = None if lost else node.obey(order, self.state.epoch, self.now_s, curve.max_mw, curve.min_mw)
            self.acks += [ack] if ack is not None else []
        for decision in decided.scaling:
            self.last_scaling[decision.deployment] = (decision, self.now_s)
            self.fleet.obey(self.config.deployments[decision.deployment], decision, self.now_s)
        return shown.plan(decided)

    # -- the load

    def _load(self, config: DeploymentConfig, tick: int) -> DeploymentObservation:
        """A swing, scatter, a burst now and then; latencies and queues that follow from load and replicas."""
        chance = self.chance
        base = sites.RATES[config.deployment]
        swing = 1.0 + 0.85 * math.sin(2.0 * math.pi * tick / TICKS_A_DAY + len(config.deployment))
        burst = 2.5 if tick % 97 in range(60, 66) else 1.0
        night = 0.0 if tick % TICKS_A_DAY in range(120, 132) and config.deployment in sites.SLEEPERS else 1.0
        rate = base * swing * burst * night * (0.85 + 0.3 * chance.random())
        isl, osl = 2000.0 + 1500.0 * chance.random(), 120.0 + 100.0 * chance.random()
        pools, most = {}, 0.0
        for name, pool in config.pools.items():
            counts = self.fleet.counts(config.deployment, name, self.now_s)
            pools[name], busy = self._pool(name, pool.role, rate, counts.ready, counts)
            self.fleet.busy[config.deployment, name] = min(1.0, busy)
            most = max(most, busy)
        drawn = {name: chance.random() for name in ("all", "lengths", "latency")}
        if config.deployment in self.dark:
            return DeploymentObservation(INTERVAL_S)
        if drawn["all"] < 0.02:
            return DeploymentObservation(INTERVAL_S, pools=pools)
        reason = GONE[int(chance.random() * len(GONE))]
        gone = Missing(reason, 30.0)
        idle = rate == 0.0 or drawn["lengths"] < 0.03
        late = idle or drawn["latency"] < 0.05
        return DeploymentObservation(
            interval_s=INTERVAL_S,
            requests=Sample(round(rate * INTERVAL_S)),
            isl_tokens=gone if idle else Sample(_read(isl)),
            osl_tokens=gone if idle else Sample(_read(osl)),
            ttft_ms=gone if late else Sample(_read(90.0 + 120.0 * most * most)),
            itl_ms=gone if late else Sample(_read(9.0 + 14.0 * min(most, 2.5))),
            isl_cv2=Sample(_read(0.3 + chance.random())),
            kv_hit_rate=Sample(_read(0.4 * chance.random())),
            pools={} if drawn["all"] > 0.985 else pools,
        )

    def _pool(
        self, name: PoolId, role: Role, rate: float, ready: int, counts: shown.Shown
    ) -> tuple[PoolObservation, float]:
        busy = rate / (max(1, ready) * (8.0 if role is Role.PREFILL else 5.0))
        gone = self.chance.random() < 0.03
        queue = Missing(MissingReason.STALE, 45.0) if gone else Sample(_read(max(0.0, 6.0 * (busy - 0.7) * ready)))
        cache = Missing(MissingReason.UNREACHABLE, 45.0) if gone else Sample(_read(min(1.0, 0.75 * busy)))
        running = Sample(_read(60.0 * min(1.0, busy) * ready))
        found = PoolObservation(counts, queue, kv_usage=cache, running_requests=running, complete=bool(len(name) % 2))
        return found, busy


def _read(value: float) -> float:
    """A reading has no more digits than these: the machine's sine must not matter."""
    return round(value, 6)


def _day(name: str, ticks: int) -> Callable[[], Iterator[Line]]:
    def lines() -> Iterator[Line]:
        config, fleet, script = sites.BUILT[name]()
        return Day(name, config, fleet, script).lines(ticks)

    return lines


DAYS: Mapping[str, Callable[[], Iterator[Line]]] = {
    "scarce": _day("scarce", 240),
    "plenty": _day("plenty", 120),
    "unpowered": _day("unpowered", 640),
}


def wire_config() -> DeploymentConfig:
    """The deployment for which the contract's stored decisions are written again."""
    return sites.deployment("wire")
