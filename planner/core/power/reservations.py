"""Reservations: which GPUs replicas get, which caps the ledger grants them, and how many replicas have their watts.

Owns the seam between a deployment's goals and the ledger. Must never decide that a watt is free: only the ledger does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from planner.core import advisory, gpu_holds, starts
from planner.core.placement import GpuInventory, choose, inventory_of, keep, powered, where
from planner.core.power import site_ledger as ledger
from planner.core.power.site_state import PowerState
from planner.core.state import DeploymentState, PlannerState
from planner.domain.config import Covers, DeploymentConfig, PlannerConfig, SiteConfig
from planner.domain.ids import DeploymentId, GpuId, PoolId
from planner.domain.plan import Placement, PowerDecision
from planner.domain.units import GpuSetpoint, TickClock


@dataclass(frozen=True, slots=True)
class ReservedGpus:
    """One deployment's GPUs after the ledger advanced: where replicas may start, and how many each pool may have."""

    placements: tuple[Placement, ...]
    counts: Mapping[PoolId, int]
    placed: Mapping[PoolId, int]
    """Replicas that hold GPUs or have GPUs chosen, whether or not their watts are reserved."""
    patience_s: float
    """Seconds that a scale-up may wait for the rest of its watts."""
    workers: starts.WorkersNow | None = None
    """None where the budget covers all GPUs."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """The state after the ledgers advanced, the power decisions to send, and what each powered deployment may start."""

    state: PlannerState
    power: tuple[PowerDecision, ...]
    deployments: Mapping[DeploymentId, ReservedGpus]


def reserve_power(state: PlannerState, config: PlannerConfig, clock: TickClock) -> Reserved:
    """Choose GPUs for the goal's replicas and advance every site's ledger: lower first, raise what is proven free.

    A site whose deployments are all only watched is left alone: no cap, no lease.
    """
    power = dict(state.power)
    decisions: list[PowerDecision] = []
    reserved: dict[DeploymentId, ReservedGpus] = {}
    for name, site in config.sites.items():
        if advisory.hands_off(config, name):
            continue
        members = advisory.acting(config, name)
        if not powered(state, name):
            if starts.must_wait(power[name], site, clock.now_s):
                reserved |= {d: ReservedGpus((), {}, {}, site.patience_s) for d in members}
            continue
        inventory = inventory_of(power[name], site, clock.now_s)
        if site.covers is Covers.WORKERS:
            state, power[name] = _with_outcomes(state, config, inventory, power[name], clock.now_s)
            power[name] = _pledged(power[name], inventory, state, config)
        chosen = _chosen_by_all(inventory, members, config, state, gpu_holds.held_gpus(power[name]))
        if any(state.deployments[d].pending.goals for d in members):
            setpoints = _setpoints(inventory, chosen, state.deployments)
            power[name] = ledger.want_with_holds(power[name], setpoints, site, clock.now_s)
        power[name], sent = ledger.advance(power[name], site, clock.now_s)
        decisions += sent
        gate = starts.StartGate(power[name], site, clock.now_s)
        for d in members:
            reserved[d] = _reserved(
                power[name], site, inventory, config.deployments[d], state.deployments[d], chosen[d], gate
            )
    deployments = dict(state.deployments)
    for d, held in reserved.items():
        pending = deployments[d].pending
        if pending.placements != held.placements or pending.placed != held.placed:
            pending = replace(pending, placements=held.placements, placed=held.placed)
            deployments[d] = replace(deployments[d], pending=pending)
    return Reserved(replace(state, power=power, deployments=deployments), tuple(decisions), reserved)


def _chosen_by_all(
    inventory: GpuInventory,
    members: Iterable[DeploymentId],
    config: PlannerConfig,
    state: PlannerState,
    held: frozenset[GpuId],
) -> dict[DeploymentId, tuple[Placement, ...]]:
    """GPUs for each deployment's new replicas; one that a hold has only where there are too few others."""

    def chosen_from(left: GpuInventory) -> dict[DeploymentId, tuple[Placement, ...]]:
        chosen = {}
        for d in members:
            chosen[d] = _chosen(left, config.deployments[d], state.deployments[d])
            left = left.without(chosen[d])
        return chosen

    found = chosen_from(inventory)
    if not any(gpu in held for placements in found.values() for p in placements for gpu in p.gpus):
        return found
    spared = chosen_from(inventory.without_gpus(held))
    return found if sum(map(len, spared.values())) < sum(map(len, found.values())) else spared


def _with_outcomes(
    state: PlannerState, config: PlannerConfig, inventory: GpuInventory, power: PowerState, now_s: float
) -> tuple[PlannerState, PowerState]:
    """The state in which the site's decisions that were carried out, and seen to be, are known as such.

    A node that is silent then is covered in whole where pods may be on it that no report shows: what decisions may have
    running is no longer charged anywhere else.
    """
    deployments, site = dict(state.deployments), config.sites[power.site]
    for d in advisory.members(config, power.site):
        found = starts.outcome(deployments[d].flow, inventory, config.deployments[d], power, site, now_s)
        if found.flow is not deployments[d].flow:
            deployments[d] = replace(deployments[d], flow=found.flow)
        if found.ask or found.silent:
            power = ledger.in_whole(ledger.ask(power, found.ask), found.silent)
    return replace(state, deployments=deployments), power


def _pledged(power: PowerState, inventory: GpuInventory, state: PlannerState, config: PlannerConfig) -> PowerState:
    """The ledger with what published replicas may still take: the decisions and the GPUs' pods state it."""
    gpus = others = 0
    for d in advisory.members(config, power.site):
        flow = state.deployments[d].flow
        if flow.starts.unstated:
            gpus += max(len(power.where), config.sites[power.site].expected_gpus or 0)
            continue
        gpus += sum(starts.to_start(inventory, config.deployments[d], flow).values())
        others += starts.unannounced(inventory, config.deployments[d], flow)
    return ledger.pledge(power, gpus, others)


def _chosen(inventory: GpuInventory, config: DeploymentConfig, state: DeploymentState) -> tuple[Placement, ...]:
    """GPUs for the replicas that hold none yet: earlier choices first."""
    earlier = where(state.pending.placements)
    found: list[Placement] = []
    for name, goal in state.pending.goals.items():
        size = config.pools[name].gpus_per_replica
        lacking = goal.replicas - len(inventory.held.get((config.deployment, name), ())) // size
        if lacking <= 0:
            continue
        kept = keep(inventory, earlier.get(name, ()), lacking)
        inventory = inventory.without(kept)
        fresh = choose(inventory, name, size, lacking - len(kept))
        inventory = inventory.without(fresh)
        found += kept + fresh
    return tuple(found)


def _setpoints(
    inventory: GpuInventory,
    chosen: Mapping[DeploymentId, Iterable[Placement]],
    deployments: Mapping[DeploymentId, DeploymentState],
) -> dict[GpuId, GpuSetpoint]:
    setpoints: dict[GpuId, GpuSetpoint] = {}
    for deployment, placements in chosen.items():
        known = deployments[deployment].pending.goals
        for name, goal in known.items():
            setpoints.update(dict.fromkeys(inventory.held.get((deployment, name), ()), goal.setpoint))
        for placement in placements:
            setpoints.update(dict.fromkeys(placement.gpus, known[placement.pool].setpoint))
    return setpoints


def _reserved(
    power: PowerState,
    site: SiteConfig,
    inventory: GpuInventory,
    config: DeploymentConfig,
    state: DeploymentState,
    chosen: tuple[Placement, ...],
    gate: starts.StartGate,
) -> ReservedGpus:
    counts, placed, step_mw = {}, {}, site.smallest_step_mw
    by_pool, workers = where(chosen), None
    if site.covers is Covers.WORKERS:
        workers = starts.workers_now(inventory, config, state.flow)
    for name, goal in state.pending.goals.items():
        size = config.pools[name].gpus_per_replica
        held = len(inventory.held.get((config.deployment, name), ())) // size
        proven = sum(ledger.reserved(power, p.gpus, goal.setpoint, step_mw) for p in by_pool.get(name, ()))
        count = held + proven
        if workers is not None:
            staying, starting = workers.staying[name], workers.starting[name]
            while count > state.flow.published.get(name, 0) and not gate.admit(
                starts.starting_after(state.flow, name, count, size, staying, starting) - starting
            ):
                count -= 1
        counts[name], placed[name] = count, held + len(by_pool.get(name, ()))
    return ReservedGpus(chosen, counts, placed, site.patience_s, workers)
