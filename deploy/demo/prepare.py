"""Checks everything that can be refused before anything starts: trace, profile, budget, ports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deploy.cli.errors import UsageError
from deploy.compose.core_config import planner_config
from deploy.compose.settings_layers import SettingsError
from deploy.demo.demo_profile import profile_of_both_phases
from deploy.demo.options import UpOptions
from planner.adapters.power_priors import GpuType, curve, gpu, phase_of
from planner.adapters.traces import TraceError, read_trace
from planner.domain.config import PlannerConfig
from planner.domain.pool import Role
from planner.domain.profile import Profile
from planner.domain.request import Request
from planner.domain.units import mw_from_watts
from planner.runtime.config.settings import (
    BehaviorSettings,
    DashboardSettings,
    DeploymentSettings,
    HealthSettings,
    PoolSettings,
    RulesSettings,
    Settings,
    SiteSettings,
)
from planner.sim.cluster.plant import ClusterSpec, PlantSpec
from planner.sim.cluster.sim_gpu import GpuCard
from planner.sim.cluster.worker_pool import PoolSpec
from planner.sim.workload.generated import generated

DEFAULT_BUDGET_OF_MAXIMUM = 0.7
SCALE_DOWN_WINDOW_S = 300.0
"""Load seconds; HPA's default."""
TICK_LOAD_S = 10.0
SHORTEST_TICK_S = 0.5
DEMO_REQUESTS_PER_S = 8.0
"""A load that keeps a handful of H200s busy with the built-in profile."""
REAL_REQUESTS_PER_S = 3.0
REAL_WAVE_S = 300.0
"""A load that two cores carry over HTTP, and whose wave is seen within minutes."""
REAL_TICK_S = 5.0
PROCESS_START_S = 2.0
"""From the start of a worker's process until it begins to load its model."""
MODEL = "demo"
ROLES = {"prefill": Role.PREFILL, "decode": Role.DECODE}
REAL_ROLES = {"aggregated": Role.AGGREGATED}
"""Real workers do both phases: no request has to be handed over."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that can start."""

    options: UpOptions
    requests: Iterable[Request]
    profile: Profile
    settings: Settings
    planner: PlannerConfig
    budget_watts: float

    @property
    def plant(self) -> PlantSpec:
        """The cluster to simulate."""
        return _plant(self.options, gpu(self.options.gpu), self.profile)

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(f"node-{index}" for index in range(self.options.nodes))


def prepare(options: UpOptions) -> Prepared:
    """Check and read everything that the options name. Raises UsageError with one line."""
    options.check()
    kind = gpu(options.gpu)
    profile = _profile(options)
    requests = _requests(options)
    budget_watts = _budget(options, kind)
    settings = _settings(options, profile, budget_watts)
    return Prepared(
        options=options,
        requests=requests,
        profile=profile,
        settings=settings,
        planner=_config(options, settings, profile),
        budget_watts=budget_watts,
    )


def _profile(options: UpOptions) -> Profile:
    profile = profile_of_both_phases(options.profile, options.gpu)
    largest = max(profile.prefill_gpus, profile.decode_gpus)
    if largest > options.gpus_per_node:
        raise UsageError(
            f"profile {options.profile}: an engine takes {largest} GPUs of one node; --gpus-per-node is less"
        )
    if options.real_workers:
        if profile.prefill_gpus != profile.decode_gpus:
            raise UsageError(
                f"profile {options.profile}: its prefill engine takes {profile.prefill_gpus} GPUs, its decode engine"
                f" {profile.decode_gpus}; real workers do both: give a profile of one size"
            )
    elif profile.prefill_gpus + profile.decode_gpus > options.nodes * options.gpus_per_node:
        raise UsageError(f"profile {options.profile}: one engine of each phase does not fit on the cluster's GPUs")
    return profile


def _requests(options: UpOptions) -> Iterable[Request]:
    if options.trace is None:
        if options.real_workers:
            return generated(options.seed, requests_per_s=REAL_REQUESTS_PER_S, wave_s=REAL_WAVE_S)
        return generated(options.seed, requests_per_s=DEMO_REQUESTS_PER_S)
    try:
        return read_trace(options.trace)
    except TraceError as error:
        raise UsageError(str(error)) from error


def _budget(options: UpOptions, kind: GpuType) -> float:
    gpus = options.nodes * options.gpus_per_node
    if options.budget_watts is None:
        return DEFAULT_BUDGET_OF_MAXIMUM * gpus * kind.tdp_watts
    least = gpus * kind.min_watts
    if options.budget_watts < least:
        raise UsageError(
            f"--budget-watts {options.budget_watts:g} is below the sum of minimum caps, {least:g} W"
            f" ({gpus} GPUs at {kind.min_watts:g} W): give more, or fewer GPUs"
        )
    return options.budget_watts


def _gpus_of(profile: Profile, role: Role) -> int:
    return profile.prefill_gpus if role is Role.PREFILL else profile.decode_gpus


def _first_replicas(options: UpOptions, profile: Profile, role: Role) -> int:
    """Ready at the start: two prefill workers and one decode worker; one of each where that does not fit."""
    enough = 2 * profile.prefill_gpus + profile.decode_gpus <= options.nodes * options.gpus_per_node
    return 2 if role is Role.PREFILL and enough else 1


def _plant(options: UpOptions, kind: GpuType, profile: Profile) -> PlantSpec:
    card = GpuCard(
        model=f"simulated {kind.name.upper()}",
        default_mw=mw_from_watts(kind.tdp_watts),
        min_mw=mw_from_watts(kind.min_watts),
        max_mw=mw_from_watts(kind.tdp_watts),
        idle_mw=mw_from_watts(kind.idle_watts),
    )
    pools = tuple(
        PoolSpec(
            pool=name,
            role=role,
            gpus_per_replica=_gpus_of(profile, role),
            curve=curve(kind, phase_of(role)),
            replicas=_first_replicas(options, profile, role),
            startup_s=options.startup_s,
        )
        for name, role in ROLES.items()
    )
    cluster = ClusterSpec(options.nodes, options.gpus_per_node, card)
    return PlantSpec(cluster, pools, profile, seed=options.seed)


def _settings(options: UpOptions, profile: Profile, budget_watts: float) -> Settings:
    """The planner's settings, as a site would write them; where the cluster's page is comes later."""
    gpus = options.nodes * options.gpus_per_node
    pools = {
        name: PoolSettings(
            component=name,
            max_replicas=max(1, gpus // _gpus_of(profile, role)),
            startup_s=options.startup_s + (PROCESS_START_S if options.real_workers else 0.0),
            max_cap_watts=options.prefill_cap_watts if role is Role.PREFILL else options.decode_cap_watts,
            behavior=BehaviorSettings(scale_down=RulesSettings(stabilization_window_s=SCALE_DOWN_WINDOW_S)),
        )
        for name, role in (REAL_ROLES if options.real_workers else ROLES).items()
    }
    deployment = DeploymentSettings(
        site=options.site,
        model=MODEL,
        gpu=options.gpu,
        pools=pools,
        caps=options.caps,
        ttft_ms=options.ttft_ms,
        itl_ms=options.itl_ms,
    )
    return Settings(
        sites={
            options.site: SiteSettings(
                budget_watts=budget_watts, expected_gpus=gpus, shortage=options.shortage, covers=options.covers
            )
        },
        deployments={options.deployment: deployment},
        interval_s=REAL_TICK_S if options.real_workers else max(SHORTEST_TICK_S, TICK_LOAD_S / options.speed),
        load_time_scale=options.speed,
        health=HealthSettings(port=0),
        dashboard=DashboardSettings(port=0),
        provision=False,
    )


def _config(options: UpOptions, settings: Settings, profile: Profile) -> PlannerConfig:
    try:
        return planner_config(settings, offline=True, profiles={options.deployment: profile})
    except SettingsError as error:
        raise UsageError(*error.problems) from error
