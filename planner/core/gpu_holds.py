"""Holds: caps for GPUs that no pool has, asked for over the bus for a short time, as a profiler does.

Owns which holds count. A hold adds what the ledger is asked for, never what it may grant; pools come first, in watts
and in GPUs: a hold is granted in whole where the budget carries it beside all that they want, or not at all. One that
is not renewed ends by itself. Pure; the instant is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from operator import or_

from planner.core.power.cap_changes import answers, fallbacks, goal, squeeze
from planner.core.power.node_ledger import NodeLedger
from planner.core.power.site_state import PowerState, belongs, gpus_mw, in_advance_mw
from planner.domain.config import Covers, SiteConfig
from planner.domain.ids import GpuId, NodeId
from planner.domain.observation import LEFT, GpuObservation, HoldCommand
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode
from planner.domain.units import GpuSetpoint, Milliwatts, watts_from_mw

NAMED = 3
"""Maximum number of GPUs that one sentence names."""


def absorbed(state: PowerState, commands: Iterable[HoldCommand], config: SiteConfig, now_s: float) -> PowerState:
    """The state with the commands taken in, each once, and without the holds that have ended.

    A hold lasts from when it was written, or from now where that lies ahead: a clock that is fast prolongs nothing.
    """
    kept, newest = {hold.hold_id: hold for hold in state.holds}, state.hold_sequence
    for command in sorted(commands, key=lambda each: each.sequence):
        if command.sequence <= newest:
            continue
        newest = command.sequence
        if command.release:
            kept.pop(command.hold_id, None)
        elif belongs(command.node, config):
            kept[command.hold_id] = replace(command, issued_s=min(command.issued_s, now_s))
    holds = tuple([hold for hold in kept.values() if hold.until_s > now_s])
    return replace(state, holds=holds, hold_sequence=newest)


def held_gpus(state: PowerState) -> frozenset[GpuId]:
    """All GPUs that holds name, granted or not."""
    return frozenset([gpu for hold in state.holds for gpu in hold.gpus])


@dataclass(frozen=True, slots=True)
class JudgedHolds:
    """What the ledger is asked for, holds included, and what became of each hold, by its id."""

    setpoints: Mapping[GpuId, GpuSetpoint]
    outcomes: Mapping[str, Limited]


def judged(state: PowerState, setpoints: Mapping[GpuId, GpuSetpoint], config: SiteConfig, now_s: float) -> JudgedHolds:
    """Grant the holds that fit beside ``setpoints``, which are what pools want; the oldest first."""
    wanted, outcomes = dict(setpoints), {}
    for hold in state.holds:
        code, why = _obstacle(state, hold, wanted, config, now_s)
        if not why:
            more = {**wanted, **dict.fromkeys(hold.gpus, GpuSetpoint(hold.cap_mw))}
            lacking = lacking_mw(state, more, config, now_s)
            if not lacking:
                wanted, code = more, ReasonCode.GPU_HELD
            else:
                code = ReasonCode.HOLD_WAITS
                why = f"{watts_from_mw(lacking):.0f} W are missing beside what pools want and parked GPUs keep"
        outcomes[hold.hold_id] = Limited(hold.cap_mw, code, _sentence(hold, why))
    return JudgedHolds(wanted, outcomes)


def outcomes_of(node: NodeId, state: PowerState) -> tuple[Limited, ...]:
    """What became of the holds on a node's GPUs."""
    if not state.hold_outcomes:
        return ()
    return tuple(
        [state.hold_outcomes[h.hold_id] for h in state.holds if h.node == node and h.hold_id in state.hold_outcomes]
    )


def with_new_outcome(state: PowerState, outcomes: Mapping[str, Limited]) -> frozenset[NodeId]:
    """Nodes of the ledger with a hold that ``outcomes`` judge differently from the last step's."""
    before = {hold_id: outcome.reason for hold_id, outcome in state.hold_outcomes.items()}
    return frozenset(
        [
            hold.node
            for hold in state.holds
            if hold.node in state.nodes and outcomes[hold.hold_id].reason is not before.get(hold.hold_id)
        ]
    )


def lacking_mw(
    state: PowerState, setpoints: Mapping[GpuId, GpuSetpoint], config: SiteConfig, now_s: float
) -> Milliwatts:
    """Milliwatts by which the site cannot carry ``setpoints`` in whole, with every other GPU as without them."""
    goals, pages = {}, []
    for node, ledger in state.nodes.items():
        page = _wanting(ledger, setpoints)
        goals[node] = goal(page, fallbacks(page, config, state.share), hold=False)
        pages.append(page)
    reachable = {node for node, ledger in state.nodes.items() if answers(ledger, config, now_s)}
    allowed = gpus_mw(state, config, now_s) - in_advance_mw(state, config)
    fit = squeeze(pages, goals, reachable, Milliwatts(allowed))
    return Milliwatts(0 if fit.full else fit.whole - fit.part + fit.shortfall_mw)


def _wanting(ledger: NodeLedger, setpoints: Mapping[GpuId, GpuSetpoint]) -> NodeLedger:
    """The ledger as if ``setpoints`` were wanted and, where the budget covers workers only, reserved."""
    wanted = tuple([setpoints.get(gpu) for gpu in ledger.cards.gpus])
    covered = ledger.covered
    if covered is not None:
        covered = tuple(map(or_, covered, [want is not None for want in wanted]))
    return ledger._replace(wanted=wanted, covered=covered)


def _obstacle(
    state: PowerState, hold: HoldCommand, wanted: Mapping[GpuId, GpuSetpoint], config: SiteConfig, now_s: float
) -> tuple[ReasonCode, str]:
    """Why a hold cannot be granted whatever the budget is; an empty sentence where it can."""
    if not hold.gpus or hold.cap_mw <= 0:
        return ReasonCode.HOLD_REFUSED, "it names no GPU or no watts"
    ledger = state.nodes.get(hold.node)
    if ledger is None or ledger.seen is None:
        return ReasonCode.HOLD_WAITS, f"no agent has reported node {hold.node}"
    if not answers(ledger, config, now_s):
        return ReasonCode.HOLD_WAITS, f"node {hold.node} does not answer"
    for gpu in hold.gpus:
        if gpu not in ledger.cards.gpus:
            return ReasonCode.HOLD_REFUSED, f"node {hold.node} has no GPU {gpu}"
        row = ledger.seen.gpus.get(gpu)
        if row is None or not row.healthy:
            return ReasonCode.HOLD_WAITS, f"GPU {gpu} is not reported as healthy"
        if holder := _holder(state, hold, row, wanted, config):
            return ReasonCode.HOLD_REFUSED, f"GPU {gpu}: {holder}"
        if row.worker == LEFT:
            return ReasonCode.HOLD_WAITS, f"GPU {gpu}: what left it still drains"
    return ReasonCode.GPU_HELD, ""


def _holder(
    state: PowerState,
    hold: HoldCommand,
    row: GpuObservation,
    wanted: Mapping[GpuId, GpuSetpoint],
    config: SiteConfig,
) -> str:
    """Who has a GPU, as words; empty where a hold may have it."""
    if row.deployment is not None:
        return f"a pod of {row.deployment} holds it"
    if row.worker not in {None, LEFT} and config.covers is Covers.WORKERS:
        return f"a pod holds it ({row.worker}), and this site's budget covers its own workers only"
    if row.gpu not in wanted:
        return ""
    others = [each.hold_id for each in state.holds if each.hold_id != hold.hold_id and row.gpu in each.gpus]
    return f"hold {others[0]} has it" if others else "a replica is about to start on it"


def _sentence(hold: HoldCommand, why: str) -> str:
    named = ", ".join(hold.gpus[:NAMED]) + (f" and {len(hold.gpus) - NAMED} more" if len(hold.gpus) > NAMED else "")
    who = f" by {hold.issued_by}" if hold.issued_by else ""
    asked = f"hold {hold.hold_id}{who}: {watts_from_mw(hold.cap_mw):g} W for {named or 'no GPU'} on {hold.node}"
    return f"{asked}: {why}" if why else asked
