"""The world of one seed: the size of the site, its settings, and the frequency of each kind of fault."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from planner.domain.config import Covers, DeploymentConfig, PlannerConfig, PoolConfig, SiteConfig
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.domain.profile import Profile
from planner.domain.units import Milliwatts

FAULTS = (
    "budget_cut",
    "budget_raise",
    "budget_ramp",
    "budget_ahead",
    "budget_past",
    "budget_release",
    "driver_reset",
    "foreign_writer",
    "other_limiter",
    "no_effect",
    "write_error",
    "read_error",
    "agent_crash",
    "agent_stall",
    "agent_partition",
    "planner_crash",
    "planner_stall",
    "planner_partition",
    "lease_junk",
    "node_off",
    "storm",
    "replay",
    "bus_put_back",
    "week_of_silence",
)
POD_FAULTS = ("pod_unannounced", "pod_moved", "pod_forced", "api_away", *("foreign_pod",) * 3)
"""Besides, where the budget covers workers only: a replica that no decision asked for, one that moves, one that is
deleted by force and still runs, the Kubernetes API away while an agent restarts, others' pods."""
HOLD_FAULTS = ("gpu_hold",) * 3
"""Besides, in half of the worlds: a profiler holds GPUs, renews for a while, and releases them or is killed."""
ALL_FAULTS = (*FAULTS, *dict.fromkeys(POD_FAULTS), *dict.fromkeys(HOLD_FAULTS))
MOODS = (
    (),
    ("planner_crash", "planner_stall", "planner_partition", "lease_junk"),
    ("agent_crash", "agent_stall", "agent_partition", "replay"),
    ("driver_reset", "foreign_writer", "other_limiter", "no_effect", "write_error", "read_error"),
    ("budget_cut", "budget_raise", "budget_ramp", "budget_ahead", "budget_past", "budget_release"),
    ("storm", "replay", "agent_partition", "planner_stall"),
    ("bus_put_back", "week_of_silence", "planner_crash", "agent_crash"),
)
"""What an episode is rich in, besides a little of everything."""
FAVOUR = 6
OFTEN = ("replay", "replay", "replay", "planner_stall", "planner_stall", "storm")
"""What every episode has more of."""
SHARP = ("storm", "storm", *("replay",) * 3, *("planner_stall",) * 4, "planner_crash", "agent_partition", "agent_stall",
         "bus_put_back", "week_of_silence")  # fmt: skip
"""All there is in half of the worlds: hardware that obeys, a steady budget, and messages and leaders that do not."""
SITE = SiteId("prove")
DEPLOYMENT = DeploymentId("prove-chat")
PREFILL, DECODE = PoolId("prefill"), PoolId("decode")


@dataclass(frozen=True, slots=True)
class FaultScenario:
    """One seed's world. Times in seconds, powers in milliwatts; ``fault_every_s`` is the mean time between faults."""

    seed: str
    nodes: int
    gpus_per_node: int
    planners: int
    config: SiteConfig
    leader_ttl_s: float
    telemetry_s: float
    reconcile_s: float
    want_every_s: float
    fault_every_s: float
    skews: tuple[float, ...]
    loss: float
    """Share of messages lost outside storms."""
    kinds: tuple[str, ...]
    """Kinds of faults to draw from; some more than once."""
    default_mw: int = 700_000
    min_mw: int = 200_000
    fixed_mw: tuple[int, int] | None = None
    """The caps of prefill and decode GPUs where they are fixed (``caps: fixed``); None: any caps are wanted."""
    phases: bool = False
    """Whether the connector reports when nothing is left to drain, so that watts are credited only then."""

    @property
    def workers(self) -> bool:
        """Whether the budget covers workers only: then replicas come and go, and their pods hold the GPUs."""
        return self.config.covers is Covers.WORKERS

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    @property
    def overhead_mw(self) -> int:
        """Host overhead of all nodes plus margin, in milliwatts."""
        return self.nodes * self.config.host_overhead_mw_per_node + self.config.margin_mw

    @property
    def lowest_mw(self) -> int:
        """The site at its minimum caps, in milliwatts."""
        return self.gpus * self.min_mw + self.overhead_mw

    @property
    def highest_mw(self) -> int:
        """The site without caps, in milliwatts."""
        return self.gpus * self.default_mw + self.overhead_mw


def draw(seed: str, covers: Covers | None = None, *, holds: bool | None = None) -> FaultScenario:
    """The scenario of a seed. ``covers`` and ``holds`` (whether there are profilers): None: as the seed has it."""
    rng = Random(f"scenario {seed}")
    sharp = rng.random() < 0.5
    sites = ((2, 4), (2, 4), (3, 3), (4, 2), (4, 4), (6, 2))
    nodes, per_node = rng.choice(sites[:3] if sharp else sites)
    lease_s = rng.choice((9.0, 12.0, 12.0) if sharp else (9.0, 12.0, 12.0, 30.0))
    low, high = nodes * per_node * 200_000, nodes * per_node * 700_000
    overhead, margin = rng.choice((0, 300_000)), rng.choice((0, 100_000))
    budget = int(low + (high - low) * rng.uniform(0.25, 0.75)) + nodes * overhead + margin
    fallback = rng.choice((None, Milliwatts(200_000), Milliwatts(260_000)))
    known = sharp or rng.choice((False, True, True))
    config = SiteConfig(
        site=SITE,
        budget_mw=Milliwatts(budget),
        host_overhead_mw_per_node=Milliwatts(overhead),
        margin_mw=Milliwatts(margin),
        lease_s=lease_s,
        settle_s=1.0 if sharp else rng.choice((1.0, 2.0)),
        flight_s=rng.choice((0.5, 1.0)),
        fallback_mw=fallback,
        smallest_budget_mw=rng.choice((None, Milliwatts(low + nodes * overhead + margin))),
        expected_gpus=nodes * per_node if known else None,
        expected_nodes=nodes if known else None,
    )
    # With a steady budget the checker has no window to allow for: the sum may never exceed it by a milliwatt.
    steady = rng.random() < 0.5
    kinds = tuple(
        kind for kind in FAULTS + OFTEN + rng.choice(MOODS) * FAVOUR if not (steady and kind.startswith("budget"))
    )
    skews = tuple(rng.uniform(-0.01, 0.01) for _ in range(nodes))
    drawn = FaultScenario(
        seed=seed,
        nodes=nodes,
        gpus_per_node=per_node,
        planners=3 if sharp else rng.choice((2, 3)),
        config=config,
        leader_ttl_s=rng.choice((4.0, 8.0)),
        telemetry_s=rng.choice((1.0, 2.0)),
        reconcile_s=rng.choice((5.0, 15.0)),
        want_every_s=rng.choice((8.0, 12.0) if sharp else (4.0, 8.0, 12.0)),
        fault_every_s=rng.choice((4.0, 6.0, 8.0)) if sharp else rng.choice((2.0, 5.0, 8.0, 12.0, 20.0)),
        skews=skews,
        loss=0.02 if sharp else rng.choice((0.0005, 0.002, 0.02)),
        kinds=SHARP if sharp else kinds,
    )
    drawn = replace(drawn, fixed_mw=_fixed_mw(drawn, Random(f"caps {seed}")))
    rng = Random(f"covers {seed}")
    workers = rng.random() >= 0.5 if covers is None else covers is Covers.WORKERS
    drawn = _workers_only(drawn, rng) if workers else drawn
    # Random numbers of their own, so that the worlds without holds stay as they were.
    held = Random(f"holds {seed}").random() < 0.5 if holds is None else holds
    return replace(drawn, kinds=drawn.kinds + HOLD_FAULTS) if held else drawn


def _fixed_mw(drawn: FaultScenario, rng: Random) -> tuple[int, int] | None:
    """Half of the worlds have fixed caps: random numbers of their own, so that all else of a seed stays as it was."""
    if rng.random() < 0.5:
        return None
    return rng.randrange(drawn.min_mw, 500_000), rng.randrange(drawn.min_mw, 500_000)


def _workers_only(drawn: FaultScenario, rng: Random) -> FaultScenario:
    """The world with a budget that covers workers only: random numbers of its own, so that the rest stays as it was."""
    budget = int(drawn.gpus * drawn.default_mw * rng.uniform(0.15, 0.6)) + drawn.overhead_mw
    config = replace(
        drawn.config,
        budget_mw=Milliwatts(budget),
        smallest_budget_mw=None,
        covers=Covers.WORKERS,
        deployments=frozenset({DEPLOYMENT}),
    )
    # Counts change often: what matters happens while replicas come and go.
    every_s = rng.choice((1.5, 4.0, 12.0))
    return replace(
        drawn, config=config, kinds=drawn.kinds + POD_FAULTS, want_every_s=every_s, phases=rng.random() < 0.5
    )


def planner_config(scenario: FaultScenario) -> PlannerConfig:
    """The planner's configuration where replicas come and go: one deployment, whose prefill replicas hold two GPUs."""
    curve = PowerCurve(100_000, 700_000, 0.6, 80_000, scenario.min_mw, scenario.default_mw, scenario.default_mw)
    pools = {
        PREFILL: PoolConfig(PREFILL, Role.PREFILL, 2, curve),
        DECODE: PoolConfig(DECODE, Role.DECODE, 1, curve),
    }
    deployment = DeploymentConfig(DEPLOYMENT, SITE, pools, Profile("none", None, None), scaling_timeout_s=60.0)
    return PlannerConfig({DEPLOYMENT: deployment}, {SITE: scenario.config})
