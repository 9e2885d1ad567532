"""Calm weather: all processes are up, messages arrive at once. How a search begins, and how liveness is judged."""

from __future__ import annotations

from deploy.fault_simulation.exhaustive import leaders, nodes
from deploy.fault_simulation.exhaustive.model_state import Copy, Gpu, ModelState, Node, gpu_id, node_id, with_node
from deploy.fault_simulation.exhaustive.scope import SearchScope
from planner.core.power import site_ledger
from planner.core.power.site_state import PowerState
from planner.domain.ids import GpuId

STEP_S = 1.0
CLEAR_S = 46.0
"""How long calm weather lasts until nothing may be left of what happened before."""
COMPLY_S = 16.0
"""How long calm weather lasts until the limits must be within the budget."""
START_S = 1_000.0


def calm(scope: SearchScope, world: ModelState, for_s: float, who: frozenset[int] | None = None) -> ModelState:
    """The world after ``for_s`` seconds in which the nodes ``who`` (None: all that have power) hear everything."""
    who = frozenset(range(scope.nodes)) if who is None else who
    end_s = world.now_s + for_s
    while world.now_s < end_s:
        world = _round(scope, world._replace(now_s=world.now_s + STEP_S), who)
    return world


def _round(scope: SearchScope, world: ModelState, who: frozenset[int]) -> ModelState:
    """One second: agents look and report, the leader decides, decisions arrive and are answered."""
    if not world.order_received:
        world = leaders.receive_order(scope, world)
    up = [n for n in sorted(who) if world.nodes[n].agent is not None]
    for n in up:
        node = nodes.reported(scope, n, nodes.read_hardware(scope, n, world.nodes[n], world.now_s), world.now_s)
        world = leaders.receive_report(scope, with_node(world, n, node), n, -1)
        if node.answers:
            world = leaders.receive_answer(scope, world, n, -1)
    if world.leader.wants is not None:
        # As every tick of the planner does: a node that joined since is named as well.
        world = world._replace(leader=site_ledger.want(world.leader, {**world.leader.wants}))
    world, _, _ = leaders.stepped(scope, world)
    for n in up:
        if world.nodes[n].decisions:
            node = nodes.received(scope, n, world.nodes[n], -1, world.now_s)
            world = with_node(world, n, node)
        if world.nodes[n].answers:
            world = leaders.receive_answer(scope, world, n, -1)
    return world


def beginning(scope: SearchScope) -> ModelState:
    """The first world of a search: at rest under the first wants, nothing in flight but the last messages."""
    blank = Node((), None)
    world = ModelState(
        START_S,
        1,
        site_ledger.initial(scope.config, 1, START_S, ()),
        (blank,) * scope.nodes,
        ((float("-inf"), scope.config.budget_mw),),
        scope.budgets(),
    )
    for n in range(scope.nodes):
        off = n >= scope.nodes - scope.late
        node = Node(tuple([Gpu(0 if off else scope.default_watts * 1000) for _ in range(scope.gpus)]), None)
        world = with_node(world, n, node if off else nodes.started(scope, n, node, START_S))
    commanded = frozenset(range(scope.nodes - scope.uncommanded))
    world = calm(scope, world, 4.0, commanded)
    world = calm(scope, leaders.wanted(scope, world, 0), 24.0, commanded)
    for n in range(len(commanded), scope.nodes):
        world = with_node(world, n, nodes.reported(scope, n, world.nodes[n], world.now_s))
        world = leaders.receive_report(scope, world, n, -1)
    if scope.copied_first:
        world = copied(scope, world)
        world = calm(scope, leaders.wanted(scope, world, 1), 24.0)
    return world._replace(nodes=tuple([_tidy(node) for node in world.nodes]))


def copied(scope: SearchScope, world: ModelState) -> ModelState:
    """The bus is copied; of the last nodes that joined later, or of none, it may hold nothing."""
    copies = [node._replace(copy=Copy(node.decisions[-1:], node.answers[-1:])) for node in world.nodes]
    for n in range(scope.nodes - scope.copy_lacks, scope.nodes):
        copies[n] = copies[n]._replace(copy=Copy((), ()))
    return world._replace(nodes=tuple(copies), copied_epoch=world.epoch)


def _tidy(node: Node) -> Node:
    return node._replace(
        decisions=node.decisions[-1:],
        answers=node.answers[-1:],
        reports=node.reports[-1:],
    )


def judged(scope: SearchScope, world: ModelState) -> str:
    """Run calm weather from here on; returns what it does not restore, as a sentence, or an empty string."""
    wants = world.leader.wants
    world = leaders.wanted(scope, world, 0) if wants is None else world
    allowed = world.budgets[-1][1]
    world = calm(scope, world, COMPLY_S)
    least = scope.least_watts * 1000 * scope.gpus * sum(node.agent is not None for node in world.nodes)
    total = world.total_mw()
    if total > max(allowed, least):
        return f"after {COMPLY_S:g} calm seconds the limits are {total} mW, above the {allowed} mW allowed"
    unmet = _unmet(scope, calm(scope, world, CLEAR_S - COMPLY_S))
    return f"after {CLEAR_S:g} calm seconds {unmet}" if unmet else ""


def _unmet(scope: SearchScope, world: ModelState) -> str:
    state = world.leader
    if state.frozen:
        return f"raises are still frozen by {' '.join(state.frozen)}"
    if state.holds:
        return f"{state.holds[0].hold_id} still counts, which was not renewed"
    short = []
    for n, node in enumerate(world.nodes):
        if node.agent is None:
            continue
        ledger = state.nodes.get(node_id(n))
        if ledger is None:
            return f"n{n} is not known to the leader"
        for g, gpu in enumerate(node.gpus):
            at = ledger.cards.gpus.index(gpu_id(n, g))
            cap = (ledger.caps_mw or ledger.charge_mw)[at]
            if ledger.cost_mw[at] > max(gpu.set_mw, cap):
                return f"{gpu_id(n, g)} is charged {ledger.cost_mw[at]} mW with {gpu.set_mw} mW set and {cap} decided"
            wish = _wish_mw(scope, state, node, gpu_id(n, g))
            if gpu.set_mw >= wish + scope.config.smallest_step_mw:
                return f"{gpu_id(n, g)} stands at {gpu.set_mw} mW with {wish} wanted"
            if gpu.set_mw + scope.config.smallest_step_mw <= wish:
                short.append(f"{gpu_id(n, g)} stands at {gpu.set_mw} of {wish} mW wanted")
    free = site_ledger.free_mw(state, scope.config, world.now_s)
    if short and free > scope.config.smallest_step_mw * len(short):
        return f"{short[0]} while {free} mW are free"
    return ""


def _wish_mw(scope: SearchScope, state: PowerState, node: Node, gpu: GpuId) -> int:
    """The limit that a card should have when there are enough watts."""
    wanted = (state.wants or {}).get(gpu)
    wish = 0 if wanted is None else wanted.cap_mw
    bound = scope.most_watts * 1000 if node.agent is None else node.agent.bounds.get(gpu, wish)
    return min(max(min(wish, bound), scope.least_watts * 1000), scope.most_watts * 1000)
