"""A small world for the planner's core: profiles, configurations, and a site whose agents and orchestrator obey.

Not the product's simulator: just enough to drive ``step`` and ``react`` by hand, one event at a time, in tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from planner.core.intake import initial_state
from planner.core.state import PlannerState
from planner.core.step import react, step
from planner.domain.config import DeploymentConfig, PlannerConfig, PoolConfig, ScalingRules, SiteConfig
from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId, SiteId
from planner.domain.observation import (
    BudgetCommand,
    DeploymentObservation,
    GpuCapInForce,
    GpuObservation,
    NodeObservation,
    Observation,
    PoolObservation,
    PowerAckSeen,
    ScalingAckSeen,
)
from planner.domain.plan import Plan, PowerDecision, ScalingDecision
from planner.domain.pool import Replicas, Role
from planner.domain.power import PowerCurve
from planner.domain.profile import DecodeProfile, PrefillProfile, Profile
from planner.domain.reading import NO_DATA, Reading, Sample
from planner.domain.units import Milliwatts

D = DeploymentId("prod-llama")
SITE = SiteId("row-1")
PREFILL, DECODE = PoolId("prefill"), PoolId("decode")
CURVE = PowerCurve(
    p_s_mw=140_000, p_u_mw=600_000, alpha=0.6, idle_mw=80_000, min_mw=200_000, max_mw=700_000, useful_mw=350_000
)


def line_profile() -> Profile:
    """An engine on its lines exactly: TTFT 5 ms + 20 us a token; ITL 5 ms + 0.02 a sequence + 3e-5 a token."""
    isl = tuple(float(x) for x in (100, 1000, 2000, 4000, 8000, 16000))
    ttft = tuple(5.0 + 0.02 * x for x in isl)
    points = [(usage, context) for context in (500.0, 4000.0, 12000.0) for usage in (0.05, 0.3, 0.6, 0.9)]
    kv = 800_000
    itl = [5.0 + 0.02 * usage * kv / context + 3e-5 * usage * kv for usage, context in points]
    return Profile(
        name="line",
        prefill=PrefillProfile(isl, ttft, tuple(x / t * 1000 for x, t in zip(isl, ttft, strict=True))),
        decode=DecodeProfile(
            kv_usage=tuple(usage for usage, _ in points),
            context_tokens=tuple(context for _, context in points),
            itl_ms=tuple(itl),
            tokens_per_s_per_gpu=tuple(
                usage * kv / context / ms * 1000 for (usage, context), ms in zip(points, itl, strict=True)
            ),
            max_kv_tokens=kv,
        ),
        max_num_seqs=1024,
    )


PROFILE = line_profile()


def pool(name: PoolId, **changes: Any) -> PoolConfig:
    base = PoolConfig(name, Role(name), 1, CURVE, scale_down=ScalingRules(stabilization_window_s=300.0))
    return replace(base, **changes)


def deployment(pools: Mapping[PoolId, PoolConfig] | None = None, **changes: Any) -> DeploymentConfig:
    pools = pools if pools is not None else {PREFILL: pool(PREFILL), DECODE: pool(DECODE)}
    return replace(DeploymentConfig(D, SITE, pools, PROFILE), **changes)


def planner(one: DeploymentConfig | None = None, budget_mw: int | None = None, **changes: Any) -> PlannerConfig:
    one = one if one is not None else deployment()
    sites = {} if budget_mw is None else {SITE: SiteConfig(SITE, Milliwatts(budget_mw))}
    return replace(PlannerConfig({one.deployment: one}, sites), **changes)


def traffic(
    rate: float | None, isl: float = 3000.0, osl: float = 150.0, interval_s: float = 30.0, **readings: Reading
) -> DeploymentObservation:
    """One interval; ``rate`` None is Missing."""
    if rate is None:
        return DeploymentObservation(interval_s)
    lengths = {"isl_tokens": Sample(isl), "osl_tokens": Sample(osl)} if rate > 0 else {}
    return DeploymentObservation(interval_s, requests=Sample(rate * interval_s), **(lengths | readings))  # type: ignore[arg-type]


@dataclass
class SmallSite:
    """Nodes of equal GPUs, an agent that carries out its decisions, an orchestrator that starts pods where hinted."""

    config: PlannerConfig
    nodes: int = 1
    gpus_per_node: int = 8
    now_s: float = 0.0
    obedient: bool = True
    """Whether the orchestrator carries decisions out at once."""
    process: str = "machine/1"
    """Which process of the agents reports and answers."""
    state: PlannerState = field(init=False)
    caps: dict[GpuId, int] = field(default_factory=dict)
    pods: dict[GpuId, PoolId] = field(default_factory=dict)
    neighbours: dict[GpuId, tuple[DeploymentId, PoolId]] = field(default_factory=dict)
    """GPUs that pods of other deployments hold."""
    seen_neighbours: dict[DeploymentId, DeploymentObservation] = field(default_factory=dict)
    """Readings of other deployments, the same at every tick."""
    acks: list[PowerAckSeen] = field(default_factory=list)
    carried_out: int = -1
    published: list[ScalingDecision] = field(default_factory=list)
    power: list[PowerDecision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.caps = {gpu: CURVE.max_mw for node in range(self.nodes) for gpu in self._gpus(node)}
        self.state = initial_state(self.config, 1, self.now_s, (), ())

    def _gpus(self, node: int) -> list[GpuId]:
        return [GpuId(f"n{node}-g{i}") for i in range(self.gpus_per_node)]

    def run_pods(self, **counts: int) -> None:
        """Place pods on the first free GPUs, as an orchestrator did before the planner came."""
        for name, count in counts.items():
            free = [gpu for gpu in self.caps if gpu not in self.pods and gpu not in self.neighbours]
            self.pods.update(dict.fromkeys(free[:count], PoolId(name)))

    def count(self, name: PoolId) -> int:
        return sum(1 for held in self.pods.values() if held == name)

    def observation(self, seen: DeploymentObservation | None, budget: BudgetCommand | None = None) -> Observation:
        if seen is not None and self.config.sites:
            pools = {name: PoolObservation(Replicas(ready=self.count(name))) for name in (PREFILL, DECODE)}
            seen = replace(seen, pools=pools)
        acks, self.acks = tuple(self.acks), []
        decision = self.state.deployments[D].flow.decision_id
        return Observation(
            deployments={D: seen, **self.seen_neighbours} if seen is not None else {},
            nodes=self._telemetry() if self.config.sites else {},
            scaling_acks={D: ScalingAckSeen(D, decision, self.carried_out, "applied")},
            power_acks=acks,
            budget_commands=(budget,) if budget is not None else (),
        )

    def _telemetry(self) -> dict[NodeId, NodeObservation]:
        found = {}
        for node in range(self.nodes):
            name = NodeId(f"n{node}")
            gpus = {gpu: self._gpu(gpu) for gpu in self._gpus(node)}
            found[name] = NodeObservation(name, gpus, 0.0, self.process, self.now_s)
        return found

    def _gpu(self, gpu: GpuId) -> GpuObservation:
        owner, held = self.neighbours.get(gpu) or (D, self.pods.get(gpu))
        return GpuObservation(
            gpu=gpu,
            draw_mw=100_000,
            requested_mw=self.caps[gpu],
            enforced_mw=self.caps[gpu],
            default_mw=CURVE.max_mw,
            min_mw=CURVE.min_mw,
            max_mw=CURVE.max_mw,
            deployment=owner if held else None,
            pool=held,
            role=Role(held) if held else None,
        )

    def tick(self, seen: DeploymentObservation | None) -> Plan:
        self.state, plan = step(self.state, self.observation(seen), self.config, self.config.clock(self.now_s))
        self._carry_out(plan)
        return plan

    def react(self, budget: BudgetCommand | None = None) -> Plan:
        self.state, plan = react(self.state, self.observation(None, budget), self.config, self.config.clock(self.now_s))
        self._carry_out(plan)
        return plan

    def pass_time(self, seconds: float) -> None:
        """Second by second, as the service would react to acknowledgements and settle timers."""
        for _ in range(int(seconds)):
            self.now_s += 1.0
            self.react()

    def _carry_out(self, plan: Plan) -> None:
        epoch = max((power.epoch for power in self.state.power.values()), default=1)
        for order in plan.power:
            self.power.append(order)
            self.caps.update({cap.gpu: cap.setpoint.cap_mw for cap in order.caps})
            gpus = tuple(GpuCapInForce(cap.gpu, cap.setpoint.cap_mw, cap.setpoint.cap_mw) for cap in order.caps)
            ack = PowerAckSeen(
                order.node, epoch, order.decision_id, order.decision_id, "applied", gpus, "", self.process, self.now_s
            )
            self.acks.append(ack)
        for decision in plan.scaling:
            self.published.append(decision)
            if self.obedient:
                self.obey(decision)

    def obey(self, decision: ScalingDecision) -> None:
        for name, count in decision.replicas.items():
            for gpu in [gpu for gpu, held in self.pods.items() if held == name][count:]:
                del self.pods[gpu]
            hinted = [gpu for hint in decision.placements if hint.pool == name for gpu in hint.gpus]
            taken = self.pods.keys() | self.neighbours.keys()
            free = [gpu for gpu in (*hinted, *self.caps) if gpu not in taken]
            self.pods.update(dict.fromkeys(free[: count - self.count(name)], name))
        self.carried_out = decision.decision_id


__all__ = [
    "CURVE",
    "DECODE",
    "NO_DATA",
    "PREFILL",
    "PROFILE",
    "SITE",
    "D",
    "SmallSite",
    "deployment",
    "planner",
    "pool",
    "traffic",
]
