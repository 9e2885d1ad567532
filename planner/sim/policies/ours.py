"""Our planner in a closed loop with the plant: the real ``step`` and ``react``, over a bus and agents that take time.

Owns the stand-ins for bus, agents and connector: messages take ``flight_s``, limits are set at once and read back, a
scaling decision is acknowledged when its last new worker serves and its last drained one is gone. Failures are
simulated elsewhere (``deploy/fault_simulation``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from planner.core.intake import initial_state
from planner.core.power.p_u_estimator import Drawn
from planner.core.step import react, step
from planner.domain.config import DeploymentConfig, PlannerConfig, PoolConfig, SiteConfig, SizingMode
from planner.domain.ids import DeploymentId, NodeId, PoolId, SiteId
from planner.domain.observation import (
    BudgetCommand,
    GpuCapInForce,
    NodeObservation,
    Observation,
    PowerAckSeen,
    ScalingAckSeen,
)
from planner.domain.plan import Plan, PowerDecision, ScalingDecision
from planner.domain.predictor import PointModel
from planner.domain.request import ObservedLoad
from planner.domain.units import Milliwatts
from planner.sim.evaluation.plant_observer import BOOT, Watch
from planner.sim.evaluation.simulation import PhaseShare, SimulationRun
from planner.sim.workload.scenario import Scenario

SITE = SiteId("sim")
DEPLOYMENT = DeploymentId("sim")


@dataclass(frozen=True, slots=True)
class OursSettings:
    """Planner settings that differ between variants; the same for all traces and profiles."""

    sizing: SizingMode = SizingMode.SLA
    power: bool = True
    interval_s: float = 30.0
    ttft_quantile: float = 0.95
    slo_share: float | None = None
    flight_s: float = 0.05
    telemetry_s: float = 5.0
    p_u_error: float = 1.0
    """The planner's assumed P_u divided by the true one: its prior may be wrong."""
    learn_power: bool = True
    predictor: str = "blend"
    predictors: tuple[tuple[str, PointModel], ...] = ()
    """Forecast models that ``predictor`` may name beside the planner's own."""
    past_load: tuple[ObservedLoad, ...] = ()
    """What was observed before the run, as an archive keeps it."""


@dataclass(slots=True)
class OurPlanner:
    """Our planner for one run; needs a new instance for each run."""

    settings: OursSettings = OursSettings()
    label: str = "ours"
    _loop: _Loop | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        return self.label

    def start_replicas(self, scenario: Scenario) -> Mapping[str, int]:
        del scenario
        return {}

    def attach(self, run: SimulationRun) -> None:
        self._loop = _Loop(run, self.settings)

    def remembered(self, pool: str) -> Drawn:
        """What the planner has learned of each pool's draw."""
        if self._loop is None:
            return Drawn()
        return self._loop.state.deployments[DEPLOYMENT].learned.draws.get(PoolId(pool), Drawn())


def planner_config(scenario: Scenario, settings: OursSettings) -> PlannerConfig:
    """The planner configuration that an operator would write for a scenario."""
    pools = {
        PoolId(pool.pool): PoolConfig(
            pool=PoolId(pool.pool),
            role=pool.role,
            gpus_per_replica=pool.gpus_per_replica,
            curve=replace(pool.curve, p_u_mw=round(settings.p_u_error * pool.curve.p_u_mw)),
            max_replicas=max(1, scenario.gpus // pool.gpus_per_replica),
            startup_s=pool.startup_s,
            learn_power=settings.learn_power,
        )
        for pool in scenario.pools
    }
    deployment = DeploymentConfig(
        deployment=DEPLOYMENT,
        site=SITE,
        pools=pools,
        profile=scenario.profile,
        ttft_ms=scenario.ttft_ms,
        itl_ms=scenario.itl_ms,
        ttft_quantile=settings.ttft_quantile,
        slo_share=settings.slo_share,
        sizing=settings.sizing,
        predictor=settings.predictor,
        past_load=settings.past_load,
        max_gpus=scenario.gpus,
    )
    sites = {}
    if settings.power:
        full_mw = scenario.gpus * scenario.cluster.card.max_mw
        budget = full_mw if scenario.budget is None else scenario.budget.at(0.0)
        smallest = budget if scenario.budget is None else min(mw for _, mw in scenario.budget.steps)
        sites[SITE] = SiteConfig(
            SITE, Milliwatts(budget), smallest_budget_mw=Milliwatts(smallest), expected_gpus=scenario.gpus
        )
    return PlannerConfig(
        {DEPLOYMENT: deployment}, sites, interval_s=settings.interval_s, predictors=dict(settings.predictors)
    )


class _Loop:
    """The planner's runtime in virtual time: readings, messages, ticks and reactions."""

    def __init__(self, run: SimulationRun, settings: OursSettings) -> None:
        self._run = run
        self._settings = settings
        self._config = planner_config(run.scenario, settings)
        self._watch = Watch(run.plant, DEPLOYMENT, run.scenario.ttft_ms, run.scenario.itl_ms)
        self.state = initial_state(self._config, 1, run.now_s, (), ())
        self._wake_s = float("inf")
        self._scaled_id = -1
        self._at(0.0, self._announce)
        if settings.power:
            self._budget_orders()
            self._at(settings.telemetry_s, self._telemetry)
        self._at(settings.interval_s, self._tick)

    def _at(self, delay_s: float, what: Callable[[Any], None], argument: object = None) -> None:
        self._run.plant.events.at(self._run.now_s + delay_s, what, argument)

    def _budget_orders(self) -> None:
        budget = self._run.scenario.budget
        for sequence, (t_s, mw) in enumerate(budget.steps if budget else ()):
            if t_s > 0:
                order = BudgetCommand(SITE, Milliwatts(mw), t_s, sequence=sequence + 1)
                self._run.plant.events.at(t_s, self._budget, order)

    # -- messages to the planner

    def _announce(self, _: None) -> None:
        self._react(Observation(nodes=self._nodes()))

    def _telemetry(self, _: None) -> None:
        if self._run.over:
            return
        self._react(Observation(nodes=self._nodes()))
        self._at(self._settings.telemetry_s, self._telemetry)

    def _nodes(self) -> Mapping[NodeId, NodeObservation]:
        return self._watch.nodes() if self._settings.power else {}

    def _budget(self, order: BudgetCommand) -> None:
        self._react(Observation(budget_commands=(order,)))

    def _react(self, observation: Observation) -> None:
        self.state, plan = react(self.state, observation, self._config, self._config.clock(self._run.now_s))
        self._publish(plan)

    def _tick(self, _: None) -> None:
        if self._run.over:
            return
        self._watch.pending = self._run.fleet.pending
        observation = Observation({DEPLOYMENT: self._watch.deployment()}, self._nodes())
        self.state, plan = step(self.state, observation, self._config, self._config.clock(self._run.now_s))
        self._note(plan)
        self._publish(plan)
        self._at(self._settings.interval_s, self._tick)

    def _wake(self, when_s: float) -> None:
        if when_s == self._wake_s and not self._run.over:
            self._wake_s = float("inf")
            self._react(Observation())

    # -- messages from the planner

    def _publish(self, plan: Plan) -> None:
        flight_s = self._settings.flight_s
        for power in plan.power:
            self._at(flight_s, self._set_caps, power)
        for scaling in plan.scaling:
            self._at(flight_s, self._scale, scaling)
        if plan.next_event_s is not None:
            when_s = max(plan.next_event_s, self._run.now_s + 0.05)
            if when_s < self._wake_s:
                self._wake_s = when_s
                self._run.plant.events.at(when_s, self._wake, when_s)

    def _set_caps(self, order: PowerDecision) -> None:
        plant = self._run.plant
        in_force = []
        for cap in order.caps:
            enforced = plant.set_cap(cap.gpu, cap.setpoint.cap_mw)
            in_force.append(GpuCapInForce(cap.gpu, plant.gpus[cap.gpu].requested_mw, enforced))
        decided = order.decision_id
        ack = PowerAckSeen(
            order.node, self.state.epoch, decided, decided, "applied", tuple(in_force), "", BOOT, plant.now_s
        )
        self._at(self._settings.flight_s, self._power_ack, ack)

    def _power_ack(self, ack: PowerAckSeen) -> None:
        self._react(Observation(power_acks=(ack,)))

    def _scale(self, order: ScalingDecision) -> None:
        run = self._run
        why = order.reasons[-1] if order.reasons else None
        for pool, count in order.replicas.items():
            reason, sentence = (why.reason.value, why.sentence) if why else ("", "")
            run.changed(pool, run.fleet.targets[pool], count, reason, sentence)
        hints: dict[str, list[Sequence[str]]] = {}
        for placement in order.placements:
            hints.setdefault(placement.pool, []).append(placement.gpus)
        run.fleet.aim(
            {str(pool): count for pool, count in order.replicas.items()}, hints, lambda: self._scaled(order.decision_id)
        )

    def _scaled(self, decision_id: int) -> None:
        self._at(self._settings.flight_s, self._scaling_ack, decision_id)

    def _scaling_ack(self, decision_id: int) -> None:
        ack = ScalingAckSeen(DEPLOYMENT, decision_id, decision_id, "applied")
        nodes = self._nodes()
        self._react(Observation(scaling_acks={DEPLOYMENT: ack}, nodes=nodes))

    def _note(self, plan: Plan) -> None:
        """Record why the planner got less than it wanted, for the causes of misses, and what its shares came to."""
        for deployment in plan.deployments.values():
            for phase, share in deployment.good.items():
                self._run.shares.append(PhaseShare(self._run.now_s, phase, share.predicted, share.measured))
            if (rate := deployment.forecasts.get("request_rate_per_s")) is not None:
                self._run.forecasts.append((self._run.now_s, rate.upper))
            for pool in deployment.pools.values():
                if pool.granted < pool.wanted:
                    reason = pool.chain[-1].reason.value if pool.chain else "unknown"
                    self._run.wanted_but_held.append((self._run.now_s, reason))
