"""The power state of one site: a frozen value that a step replaces, rebuilt from the streams after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from planner.core import coverage
from planner.core.power.brake import Brake
from planner.core.power.cap_changes import allowed_mw
from planner.core.power.effective_budget import effective_mw
from planner.core.power.node_ledger import Cards, NodeLedger
from planner.domain.config import Covers, SiteConfig
from planner.domain.ids import GpuId, NodeId, SiteId
from planner.domain.observation import BudgetCommand, HoldCommand
from planner.domain.plan import Limited
from planner.domain.units import GpuSetpoint, Milliwatts


@dataclass(frozen=True, slots=True)
class Removed:
    """When a node was removed, and its last report before that: received again, that report is not a sign of life."""

    at_s: float
    boot: str = ""
    clock_s: float | None = None


@dataclass(frozen=True, slots=True)
class PowerState:
    """Everything that one site's ledger knows. ``frozen`` names violated invariants, which stop every raise."""

    site: SiteId
    epoch: int
    raises_from_s: float
    nodes: Mapping[NodeId, NodeLedger] = field(default_factory=dict)
    where: Mapping[GpuId, NodeId] = field(default_factory=dict)
    wants: Mapping[GpuId, GpuSetpoint] | None = None
    orders: tuple[BudgetCommand, ...] = ()
    brake: Brake = field(default_factory=Brake)
    removed: Mapping[NodeId, Removed] = field(default_factory=dict)
    """Nodes that an operator removed: only a later sign of life brings a node back."""
    past_ids: Mapping[NodeId, int] = field(default_factory=dict)
    """The next decision id of nodes that were removed: their agents have seen all smaller ones."""
    node_commands: Mapping[NodeId, int] = field(default_factory=dict)
    """The newest operator's command that was carried out, by node."""
    holds: tuple[HoldCommand, ...] = ()
    """The holds that have not ended, oldest first; `planner.core.gpu_holds` has the rules."""
    hold_sequence: int = -1
    """The newest command for a hold that was taken in."""
    hold_outcomes: Mapping[str, Limited] = field(default_factory=dict)
    """What became of each hold in the last step, by its id."""
    share: int = 0
    share_key: tuple[int, tuple[Cards, ...]] | None = None
    """What ``share`` was derived from: the milliwatts that fallbacks may add up to, and the limits of all nodes."""
    since_s: float = float("-inf")
    """When this leader took the lead."""
    doubted: bool = False
    """The bus may have been restored from a copy: the inherited ledger may be older than the last grants."""
    over_since_s: float | None = None
    shortfall_mw: Milliwatts = Milliwatts(0)
    squeezed: bool = False
    frozen: tuple[str, ...] = ()
    left_gpus: int = 0
    """GPUs that keep their watts although no pod holds them: what left them is not drained yet."""
    pledged_gpus: int = 0
    """GPUs on which published replicas may still start; kept where the budget covers workers only."""
    unannounced_gpus: int = 0
    """GPUs whose pods no decision brought up, likewise."""


def charged_mw(state: PowerState) -> Milliwatts:
    """The sum of all charges, with what has not settled yet."""
    return Milliwatts(sum([ledger.total_mw for ledger in state.nodes.values()]))


def highest_mw(state: PowerState) -> Milliwatts:
    """The highest limit that any GPU known of the site can have."""
    return Milliwatts(max([max(ledger.cards.highest_mw, default=0) for ledger in state.nodes.values()], default=0))


def unreported_gpus(state: PowerState, config: SiteConfig) -> int:
    """How many of the GPUs that the site is known to have no agent has ever reported."""
    return max(0, (config.expected_gpus or 0) - len(state.where))


def unseen_mw(state: PowerState, config: SiteConfig) -> Milliwatts:
    """The charge of GPUs that the site is known to have but no agent has reported, with their hosts.

    Each at the highest limit of the site and not at the default: a node that joined after an old copy of the bus was
    made may have been granted more than the default, and neither this leader nor the next can know that.
    """
    gpus = unreported_gpus(state, config)
    if not gpus:
        return Milliwatts(0)
    most = max((len(n.cards.gpus) for n in state.nodes.values()), default=1)
    hosts = -(-gpus // max(1, most))
    if config.expected_nodes is not None:
        hosts = max(0, config.expected_nodes - len(state.nodes))
    return Milliwatts(gpus * highest_mw(state) + hosts * config.host_overhead_mw_per_node)


def pledged_mw(state: PowerState, config: SiteConfig) -> Milliwatts:
    """What is charged for GPUs on which published replicas may still start, wherever they start.

    While some GPU of the site is not reported, one of them may start there: at the highest limit of the site.
    """
    gpus = state.pledged_gpus
    unknown = gpus if any(n.seen is None for n in state.nodes.values()) else min(gpus, unreported_gpus(state, config))
    return Milliwatts(coverage.pledge_mw(state.nodes.values(), gpus, [highest_mw(state)] * unknown))


def in_advance_mw(state: PowerState, config: SiteConfig) -> Milliwatts:
    """What is charged for GPUs before anything is known to draw on them."""
    return pledged_mw(state, config) if config.covers is Covers.WORKERS else unseen_mw(state, config)


def gpus_mw(state: PowerState, config: SiteConfig, now_s: float) -> Milliwatts:
    """What all GPUs of the site together may draw now: the budget less overhead, margin and brake."""
    budget = effective_mw(config, state.orders, now_s)
    return Milliwatts(allowed_mw(config, budget, len(state.nodes)) - state.brake.off_mw(now_s))


def free_mw(state: PowerState, config: SiteConfig, now_s: float) -> Milliwatts:
    """The free pool: what raises may spend. Negative while charges are above the budget."""
    return Milliwatts(gpus_mw(state, config, now_s) - charged_mw(state) - in_advance_mw(state, config))


def belongs(node: NodeId, config: SiteConfig) -> bool:
    """Whether a node draws from this site's budget."""
    return any(pattern == "*" or fnmatchcase(node, pattern) for pattern in config.nodes)
