"""One site's power, as the planner's step uses it: absorb what is seen, set what is wanted, send what is safe.

Owns the order of changes: charges first, then lowers, then raises from the free pool, then renewals. Must never raise
on a guess: what is unknown keeps its charge. Pure; the instant is an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import le, not_

from planner.core import coverage, gpu_holds
from planner.core.power import brake, invariants
from planner.core.power.cap_changes import (
    allowed_mw,
    answers,
    fallback_share,
    fallbacks,
    goal,
    lowered,
    raise_cost,
    raised,
    squeeze,
)
from planner.core.power.charging import acknowledge, contradict, doubt, enroll, inherit, issue, settle, with_report
from planner.core.power.effective_budget import level_mw, smallest_mw, with_commands
from planner.core.power.incarnation import knows_more
from planner.core.power.node_ledger import NEVER_S, NOT_DECIDED, Column, NodeLedger
from planner.core.power.queries import affordable, next_event_s, reserved, summary
from planner.core.power.site_state import (
    PowerState,
    Removed,
    belongs,
    charged_mw,
    free_mw,
    gpus_mw,
    highest_mw,
    in_advance_mw,
)
from planner.domain.config import Covers, SiteConfig
from planner.domain.ids import GpuId, NodeId
from planner.domain.observation import NodeCommand, NodeObservation, Observation, PowerAckSeen, StoredCaps
from planner.domain.plan import GpuCapTarget, Limited, PowerDecision
from planner.domain.reasons import ReasonCode
from planner.domain.units import GpuSetpoint, Milliwatts, watts_from_mw

__all__ = [
    "PowerState",
    "absorb",
    "advance",
    "affordable",
    "ask",
    "charged_mw",
    "free_mw",
    "in_whole",
    "initial",
    "next_event_s",
    "pledge",
    "reserved",
    "summary",
    "want",
]


def initial(
    config: SiteConfig,
    epoch: int,
    now_s: float,
    stored: Iterable[StoredCaps],
    *,
    doubted: bool = False,
) -> PowerState:
    """A new leader's state. ``stored``: the last power decision of each node, read AFTER leadership was won.

    Empty: no planner has led before, so that no grant can be under way; the leader waits only until every node has had
    time to report. Otherwise it is the predecessor's ledger. ``doubted``: it may come from an old copy of the bus. Then
    nothing inherited is trusted: until the first raise decisions only lower, and from then on a node that has not
    answered this leader is charged the highest limits that its GPUs can have.
    """
    ledgers = {last.node: _inherited(last, config) for last in stored if belongs(last.node, config)}
    first_ever = not ledgers
    wait_s = config.answer_s if first_ever else config.lease_s * (1.0 + config.clock_skew) + config.flight_s
    where = {gpu: node for node, ledger in ledgers.items() for gpu in ledger.cards.gpus}
    return PowerState(
        config.site, epoch, now_s + wait_s, ledgers, where, since_s=now_s, doubted=doubted and bool(ledgers)
    )


def _inherited(last: StoredCaps, config: SiteConfig) -> NodeLedger:
    ledger = inherit(last)
    return coverage.inherited(ledger, last.outside) if config.covers is Covers.WORKERS else ledger


def absorb(state: PowerState, observation: Observation, config: SiteConfig, now_s: float) -> PowerState:
    """Take in telemetry, answers, budget and node orders. A node that is absent keeps its charge."""
    nodes = dict(state.nodes)
    reported = False
    for seen in observation.nodes.values():
        reported |= _with_reports(nodes, seen, state, config, now_s)
    gone = _node_commands(state, observation.node_commands, nodes, now_s)
    doubted = state.doubted
    for ack in observation.power_acks:
        if (ledger := nodes.get(ack.node)) is not None:
            doubted = doubted or knows_more(ack, state.epoch, ledger.next_id)
            nodes[ack.node] = _answered(ledger, ack, state.epoch, config, now_s)
    orders = state.orders
    if observation.budget_commands or orders:
        orders = with_commands(orders, observation.budget_commands, config.site, now_s)
    where = state.where
    counted = sum([len(ledger.cards.gpus) for ledger in nodes.values()]) if reported else len(where)
    if counted != len(where) or nodes.keys() != state.nodes.keys():
        where = {gpu: node for node, ledger in nodes.items() for gpu in ledger.cards.gpus}
    fresh = replace(gone, nodes=nodes, where=where, orders=orders, doubted=doubted)
    if observation.hold_commands or fresh.holds:
        fresh = gpu_holds.absorbed(fresh, observation.hold_commands, config, now_s)
    return replace(fresh, brake=_brake(fresh, config, now_s)) if reported else fresh


def _with_reports(
    nodes: dict[NodeId, NodeLedger],
    seen: NodeObservation,
    state: PowerState,
    config: SiteConfig,
    now_s: float,
) -> bool:
    """Put one node's telemetry into ``nodes``; return whether it was new."""
    ledger = nodes.get(seen.node)
    if ledger is not None:
        if seen is ledger.seen:
            return False
        fresh = nodes[seen.node] = _with_pods(with_report(ledger, seen, now_s), seen, config, ledger.seen)
        return fresh is not ledger
    if not belongs(seen.node, config) or _from_before(seen, state.removed.get(seen.node), now_s):
        return False
    nodes[seen.node] = _with_pods(enroll(seen, now_s, state.past_ids.get(seen.node, 0)), seen, config, None)
    return True


def _with_pods(
    ledger: NodeLedger, seen: NodeObservation, config: SiteConfig, last: NodeObservation | None
) -> NodeLedger:
    if config.covers is Covers.ALL_GPUS:
        return ledger
    return coverage.with_pods(ledger, seen, config.deployments, last)


def _from_before(seen: NodeObservation, removed: Removed | None, now_s: float) -> bool:
    """Whether a report of a removed node is older than its removal."""
    if removed is None:
        return False
    known = removed.boot == seen.boot and removed.clock_s is not None and seen.clock_s is not None
    if known and (seen.clock_s or 0.0) <= (removed.clock_s or 0.0):
        return True
    return now_s - seen.age_s <= removed.at_s


def _answered(ledger: NodeLedger, ack: PowerAckSeen, epoch: int, config: SiteConfig, now_s: float) -> NodeLedger:
    if ack.epoch < epoch:
        return contradict(ledger, ack)  # an answer to a predecessor may raise a charge, never free one
    return acknowledge(ledger, ack, now_s, config.settle_s)


def _node_commands(
    state: PowerState, orders: tuple[NodeCommand, ...], nodes: dict[NodeId, NodeLedger], now_s: float
) -> PowerState:
    fresh = [order for order in orders if order.sequence > state.node_commands.get(order.node, -1)]
    if not fresh:
        return state
    removed, done, ids = dict(state.removed), dict(state.node_commands), dict(state.past_ids)
    for order in sorted(fresh, key=lambda o: o.sequence):
        done[order.node] = order.sequence
        ledger = nodes.get(order.node)
        issued_s = now_s if order.issued_s is None else min(order.issued_s, now_s)
        if order.action == "remove" and ledger is not None:
            # A sign of life after the command proves it wrong or outdated: the node's watts may not be lent.
            if order.issued_s is None or _gone_since(state, ledger, issued_s):
                del nodes[order.node]
                ids[order.node] = ledger.next_id
                removed[order.node] = Removed(issued_s, ledger.heard_boot, ledger.heard_clock_s)
        elif order.action == "remove":
            removed[order.node] = Removed(issued_s)
        else:
            removed.pop(order.node, None)
    return replace(state, removed=removed, node_commands=done, past_ids=ids)


def _gone_since(state: PowerState, ledger: NodeLedger, issued_s: float) -> bool:
    """Whether a node has neither reported nor answered since the command to remove it.

    On a bus restored from a copy, a past command proves nothing: the node may have come back after the copy.
    """
    if state.doubted and not ledger.proven and issued_s <= state.since_s:
        return False
    return max(ledger.reported_s, ledger.inherited_s) < issued_s


def _brake(state: PowerState, config: SiteConfig, now_s: float) -> brake.Brake:
    """Measured draw, with unknown draws at their charge; None while no GPU's draw is known."""
    draws = [(ledger.draw_mw, ledger.total_mw) for ledger in state.nodes.values()]
    known = any(draw is not None for draw, _ in draws)
    total = sum(charge if draw is None else draw for draw, charge in draws) if known else None
    budget = level_mw(config, state.orders, now_s)
    allowed = allowed_mw(config, budget, len(state.nodes))
    return brake.watch(state.brake, total, allowed, charged_mw(state), now_s)


def want(state: PowerState, setpoints: Mapping[GpuId, GpuSetpoint]) -> PowerState:
    """The state with the optimiser's setpoints. A GPU that they do not name is parked once no pod holds it."""
    if setpoints is state.wants:
        return state
    nodes = {}
    for node, ledger in state.nodes.items():
        wanted = tuple([setpoints.get(gpu) for gpu in ledger.cards.gpus])
        nodes[node] = ledger if wanted == ledger.wanted else ledger._replace(wanted=wanted, goal_mw=None)
    return replace(state, wants=setpoints, nodes=nodes)


def want_with_holds(
    state: PowerState, setpoints: Mapping[GpuId, GpuSetpoint], config: SiteConfig, now_s: float
) -> PowerState:
    """The state with what pools want, and the holds that fit beside it. A decision states each new outcome."""
    if not state.holds and not state.hold_outcomes:
        return want(state, setpoints)
    found = gpu_holds.judged(state, setpoints, config, now_s)
    fresh = want(replace(state, hold_outcomes=found.outcomes), found.setpoints)
    return ask(fresh, gpu_holds.with_new_outcome(state, found.outcomes))


def pledge(state: PowerState, gpus: int, unannounced: int = 0) -> PowerState:
    """The state in which published replicas may still start on ``gpus`` GPUs, of which no report shows a pod yet.

    ``unannounced``: number of GPUs whose pods no decision brought up.
    """
    if (gpus, unannounced) == (state.pledged_gpus, state.unannounced_gpus):
        return state
    return replace(state, pledged_gpus=gpus, unannounced_gpus=unannounced)


def ask(state: PowerState, nodes: Iterable[NodeId]) -> PowerState:
    """The state in which ``nodes`` are sent their caps again, because their answers prove what their reports show."""
    due = {node: state.nodes[node] for node in nodes if state.nodes[node].unanswered_s is None}
    if not due:
        return state
    return replace(state, nodes={**state.nodes, **{n: page._replace(sent_s=NEVER_S) for n, page in due.items()}})


def in_whole(state: PowerState, nodes: Iterable[NodeId]) -> PowerState:
    """The state in which the budget covers every GPU of ``nodes``, until each has answered and reported again."""
    return replace(state, nodes={**state.nodes, **{node: coverage.in_whole(state.nodes[node]) for node in nodes}})


def advance(state: PowerState, config: SiteConfig, now_s: float) -> tuple[PowerState, tuple[PowerDecision, ...]]:
    """The state and the decisions to publish now, lowers first; each is charged in that state."""
    state = _prepared(state, config, now_s)
    if config.covers is Covers.WORKERS:
        state = _workers_reserved(state, config, now_s)
    allowed = gpus_mw(state, config, now_s) - in_advance_mw(state, config)
    goals = {node: ledger.goal_mw or () for node, ledger in state.nodes.items()}
    reachable = {node for node, ledger in state.nodes.items() if answers(ledger, config, now_s)}
    fit = squeeze(state.nodes.values(), goals, reachable, Milliwatts(allowed))
    free = allowed - charged_mw(state)
    over_since = None if free >= 0 else now_s if state.over_since_s is None else state.over_since_s
    state = replace(state, over_since_s=over_since, shortfall_mw=fit.shortfall_mw, squeezed=not fit.full)
    state = replace(state, frozen=tuple(sorted({v.name for v in invariants.standing(state, config, now_s)})))
    targets = {node: fit.apply(goals[node], ledger.cards.min_mw) for node, ledger in state.nodes.items()}
    new = _lowers(state, targets, config, must=free < 0 or not fit.full)
    rises = {}
    if free >= 0 and not state.frozen and now_s >= state.raises_from_s:
        rises = _raises(state, targets, new, reachable, config, free, now_s)
    return _sent(state, new, rises, config, now_s)


def _prepared(state: PowerState, config: SiteConfig, now_s: float) -> PowerState:
    """Settle what has settled; derive fallbacks and goals where something changed."""
    allowed = allowed_mw(config, smallest_mw(config, state.orders, now_s), len(state.nodes))
    # Everything that the share depends on: a new leader learns the limits of inherited nodes only when they report.
    key = (allowed, tuple([ledger.cards for ledger in state.nodes.values()]))
    share = state.share
    doubts = state.doubted and now_s >= state.raises_from_s
    highest = highest_mw(state) if doubts else 0
    if key != state.share_key:
        share = fallback_share(state.nodes.values(), config, allowed)
    stale = share != state.share
    nodes = {}
    for node, ledger in state.nodes.items():
        ledger = settle(ledger, now_s, config.settle_s)
        if doubts:
            ledger = doubt(ledger, highest)
        if ledger.goal_mw is None or stale:
            ledger = _with_goal(ledger, state, config, share)
        nodes[node] = coverage.without_left(ledger, now_s, config.smallest_step_mw)
    return replace(state, nodes=nodes, share=share, share_key=key)


def _with_goal(ledger: NodeLedger, state: PowerState, config: SiteConfig, share: int) -> NodeLedger:
    return ledger._replace(goal_mw=goal(ledger, fallbacks(ledger, config, share), hold=state.wants is None))


def _workers_reserved(state: PowerState, config: SiteConfig, now_s: float) -> PowerState:
    """The state with the wanted free GPUs that the free pool can pay for: like raises, they spend only that."""
    free = int(free_mw(state, config, now_s))
    if free < 0 or state.frozen or now_s < state.raises_from_s:
        return state
    nodes = dict(state.nodes)
    for node, ledger in state.nodes.items():
        if answers(ledger, config, now_s):
            fresh, free = coverage.with_reserved(ledger, free)
            nodes[node] = ledger if fresh is ledger else _with_goal(fresh, state, config, state.share)
    return replace(state, nodes=nodes)


def _lowers(
    state: PowerState, targets: Mapping[NodeId, Column], config: SiteConfig, *, must: bool
) -> dict[NodeId, Column]:
    found = {}
    for node, ledger in state.nodes.items():
        if ledger.seen is not None:
            caps = lowered(ledger, targets[node], config.smallest_step_mw, must=must)
            if caps is not None:
                found[node] = caps
    return found


def _raises(
    state: PowerState,
    targets: Mapping[NodeId, Column],
    lowers: Mapping[NodeId, Column],
    reachable: set[NodeId],
    config: SiteConfig,
    free: int,
    now_s: float,
) -> dict[NodeId, Column]:
    """The raises that fit the free pool: all of them, or the same part of each."""
    step = config.smallest_step_mw
    open_, open_nodes = [], []
    for node, ledger in state.nodes.items():
        caps = lowers.get(node, ledger.caps_mw)
        if caps is None or node not in reachable or 0.0 <= now_s - ledger.raised_s < config.settle_s:
            continue
        open_nodes.append(node)
        if not all(map(le, targets[node], caps)):
            open_.append((ledger, caps, raise_cost(ledger, caps, targets[node], step)))
    whole = sum([cost for _, _, cost in open_])
    part = min(free, whole)
    found = {}
    for ledger, caps, _ in open_:
        rising = raised(ledger, caps, targets[ledger.node], step, part, max(1, whole))
        if rising != caps:
            found[ledger.node] = rising
    return found if config.covers is Covers.ALL_GPUS else _with_releases(state, lowers, found, open_nodes, free - part)


def _with_releases(
    state: PowerState,
    lowers: Mapping[NodeId, Column],
    rises: dict[NodeId, Column],
    nodes: Iterable[NodeId],
    free: int,
) -> dict[NodeId, Column]:
    """The raises with the GPUs that are left to others, because another's pod holds them.

    Their limits rise to their defaults. That costs watts where replicas are still to start: one may start there next.
    """
    found = dict(rises)
    for node in nodes:
        ledger = state.nodes[node]
        caps = found.get(node, lowers.get(node, ledger.caps_mw or ()))
        fresh = coverage.released(ledger, caps)
        cost = coverage.release_cost(ledger, caps, fresh) if state.pledged_gpus else 0
        if fresh != caps and cost <= free:
            free -= cost
            found[node] = fresh
    return found


def _sent(
    state: PowerState,
    lowers: Mapping[NodeId, Column],
    rises: Mapping[NodeId, Column],
    config: SiteConfig,
    now_s: float,
) -> tuple[PowerState, tuple[PowerDecision, ...]]:
    nodes = dict(state.nodes)
    down: list[PowerDecision] = []
    up: list[PowerDecision] = []
    highest = highest_mw(state) if state.doubted else 0
    for node, ledger in state.nodes.items():
        caps, rising = lowers.get(node), rises.get(node)
        final = rising if rising is not None else caps
        reason = ReasonCode.RENEWAL
        if final is not None:
            cut = ReasonCode.UNANNOUNCED if state.unannounced_gpus else ReasonCode.BUDGET_CUT
            reason = ReasonCode.REBALANCE if rising is not None or not state.squeezed else cut
        elif _wants_renewal(ledger, state, config, now_s):
            final = ledger.caps_mw
        if final is None:
            continue
        marked = state.doubted and not ledger.proven
        issued = issue(ledger, final, now_s, raises=rising is not None, share=state.share, marked=marked)
        nodes[node] = issued
        sent = doubt(issued, highest) if marked else issued
        order = _order(sent, state, config, reason, now_s, raises=rising is not None)
        (up if rising is not None else down).append(order)
    return replace(state, nodes=nodes), (*down, *up)


def _wants_renewal(ledger: NodeLedger, state: PowerState, config: SiteConfig, now_s: float) -> bool:
    """Whether a node's caps are due to be sent again: each third of a lease, sooner while a cut waits for its answer.

    A node in doubt gets a decision at once, even if it never reported: that decision is all by which the next leader
    can know of the doubt.
    """
    if state.doubted and not ledger.proven and not ledger.marked:
        return True
    cut = state.over_since_s is not None and ledger.unanswered_s is not None
    due_s = config.answer_s if cut else config.lease_s / 3.0
    if ledger.caps_mw is None or ledger.seen is None or 0.0 <= now_s - ledger.sent_s < due_s:
        return False
    if ledger.unanswered_s is not None or ledger.sent_s == float("-inf"):
        return True
    if ledger.covered is not None and ledger.seen.boot != ledger.boot:
        return True  # Only a process that has answered can show that a pod is gone.
    if ledger.hardware_mw != ledger.caps_mw and (_stands_above(ledger) or _stands_below(ledger)):
        return True
    # The agent falls back to what it was sent, which may not fit a smaller budget that has become known since.
    return not all(map(le, ledger.caps_mw, fallbacks(ledger, config, min(ledger.sent_share, state.share))))


def _stands_above(ledger: NodeLedger) -> bool:
    """Whether a settable limit was last proven above its cap: only the answer to another decision frees those watts."""
    rows = zip(ledger.healthy, ledger.hardware_mw, ledger.caps_mw or (), ledger.cards.min_mw, strict=True)
    return any(ok and cap != NOT_DECIDED and hw > max(cap, low) for ok, hw, cap, low in rows)


def _stands_below(ledger: NodeLedger) -> bool:
    """Whether a settable limit is below its cap, because the agent could not raise for a decision that came late."""
    most = map(min, ledger.caps_mw or (), ledger.cards.max_mw)
    return any(ok and hw < cap for ok, hw, cap in zip(ledger.healthy, ledger.hardware_mw, most, strict=True))


def _order(
    ledger: NodeLedger, state: PowerState, config: SiteConfig, reason: ReasonCode, now_s: float, *, raises: bool
) -> PowerDecision:
    falls = fallbacks(ledger, config, state.share)
    caps_mw = ledger.caps_mw or ()
    setpoints = map(_setpoint, caps_mw, ledger.wanted or (None,) * len(caps_mw))
    lowest = caps_mw if all(map(le, caps_mw, falls)) else map(min, caps_mw, falls)
    outside = (False,) * len(falls) if ledger.covered is None else map(not_, ledger.covered)
    rows = zip(ledger.cards.gpus, setpoints, lowest, ledger.charge_mw, ledger.cards.highest_mw, outside, strict=True)
    caps = tuple(map(GpuCapTarget._make, rows))
    released: tuple[GpuId, ...] = ()
    if ledger.covered is not None:
        released = tuple([cap.gpu for cap in caps if cap.setpoint.cap_mw == NOT_DECIDED])
        caps = tuple([cap for cap in caps if cap.setpoint.cap_mw != NOT_DECIDED])
    sentence = f"{ledger.node}: {watts_from_mw(sum(caps_mw)):.0f} W for {len(caps)} GPUs"
    why = (Limited(sum(caps_mw), reason, sentence), *gpu_holds.outcomes_of(ledger.node, state))
    report = (ledger.heard_boot, ledger.heard_clock_s)
    over = _only_lowers(ledger, state, now_s)
    return PowerDecision(ledger.node, ledger.next_id - 1, caps, config.lease_s, raises, why, *report, over, released)


def _only_lowers(ledger: NodeLedger, state: PowerState, now_s: float) -> bool:
    """Whether the agent must not raise any limit, not even back to its cap.

    The watts of a cap that was inherited in doubt may have been lent to others since. So no node climbs back to one
    before silent nodes are charged their highest limits, which is when raises begin; a node that has not answered never
    does.
    """
    if state.over_since_s is not None:
        return True
    return state.doubted and (now_s < state.raises_from_s or not ledger.proven)


def _setpoint(cap_mw: int, wanted: GpuSetpoint | None) -> GpuSetpoint:
    """The wanted setpoint with the cap that the ledger allows; every knob other than the cap is left as wanted."""
    if wanted is None:
        return GpuSetpoint(Milliwatts(cap_mw))
    return wanted if wanted.cap_mw == cap_mw else wanted.with_cap(Milliwatts(cap_mw))
