"""What must hold after every step of a search. Each check is a sentence when it fails.

Hardware comes first: the rise rule of the random proof, and a sharper one. Where our agents alone set limits, no GPU
may stand above its charge, nor may its agent yet raise it above; and the product's own invariants hold.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import le

from agent.core import caps
from agent.core.caps import Acceptance
from agent.core.deadman import lease_of
from deploy.fault_simulation.exhaustive.actions import Action
from deploy.fault_simulation.exhaustive.model_state import ModelState, Node, gpu_id, node_id
from deploy.fault_simulation.exhaustive.nodes import decision_of
from deploy.fault_simulation.exhaustive.scope import SearchScope
from planner.core.power import invariants
from planner.core.power.charging import doubt
from planner.core.power.node_ledger import NodeLedger
from planner.core.power.site_state import PowerState
from planner.domain.plan import PowerDecision


def broken(
    scope: SearchScope, before: ModelState, after: ModelState, action: Action, charged: Callable[[ModelState], str]
) -> str:
    """The promise that this step broke; empty where all hold. ``charged``: ``node_charged`` of each node."""
    sharp = scope.sharp or (scope.sharp_to_raise and after.now_s >= after.leader.raises_from_s)
    return _rise(scope, before, after, action) or (charged(after) if sharp else "")


def stepped_badly(
    scope: SearchScope, world: ModelState, before: PowerState, after: PowerState, orders: tuple[PowerDecision, ...]
) -> str:
    """The first violation of the product's own invariants in one step of the leader; empty without one."""
    found = [*invariants.step_taken(before, after, orders, scope.config, world.now_s)] if orders else []
    found += invariants.wrong_charges(after.nodes.values())
    return f"{found[0].name}: {found[0].sentence}" if found else ""


def _rise(scope: SearchScope, before: ModelState, after: ModelState, action: Action) -> str:
    """A sum above the budget may only fall; a rise must leave it within what was allowed.

    Allowed is the largest budget of the last lease, for a grant made under it may be on its way. A rise that a
    decision caused is held to more: to the largest budget since the one that its leader knew of.
    """
    total, was = after.total_mw(), before.total_mw()
    kind, n, index = action
    if total > was and kind == "deliver" and _in_doubt(before, n, index):
        return f"n{n} rose for a leader in doubt, before those that are silent are charged their highest limits"
    if total <= was or total <= after.budgets[-1][1]:
        return ""
    allowed = after.largest_mw(after.now_s - scope.rise_window_s)
    if kind == "deliver":
        allowed = min(allowed, after.largest_known_mw(before.nodes[n].arriving[index].known))
    return f"limits rose from {was} to {total} mW, above the {allowed} mW allowed" if total > allowed else ""


def _in_doubt(world: ModelState, n: int, index: int) -> bool:
    """Whether a decision is one of a leader over an old copy that may not raise yet."""
    leader, node = world.leader, world.nodes[n]
    if not leader.doubted or world.now_s >= leader.raises_from_s or index < len(node.strays):
        return False
    return node.arriving[index].epoch == leader.epoch


def node_charged(scope: SearchScope, world: ModelState, n: int) -> str:
    """Whether node ``n`` stands above its charge, or may yet. Read of the world: the instant, the node and its page."""
    node = world.nodes[n]
    page = world.leader.nodes.get(node_id(n))
    if page is not None and scope.sharp_to_raise:
        page = doubt(page, scope.most_watts * 1000) if world.leader.doubted else page
    if page is not None:
        return _page_charged(scope, world, n, node, page)
    if not scope.expected and any(gpu.set_mw for gpu in node.gpus):
        return f"n{n} draws and is charged nothing"
    return ""


def _page_charged(scope: SearchScope, world: ModelState, n: int, node: Node, page: NodeLedger) -> str:
    limits = [gpu.set_mw for gpu in node.gpus]
    if len(page.charge_mw) == len(limits) and not all(map(le, limits, page.charge_mw)):
        return f"n{n} stands at {limits} mW and is charged {list(page.charge_mw)} mW"
    most = _may_raise_to(scope, world, n, node)
    for g, reach in enumerate(most):
        at = page.cards.gpus.index(gpu_id(n, g))
        if reach > page.charge_mw[at]:
            return f"the agent of n{n} may yet raise {gpu_id(n, g)} to {reach} mW, charged {page.charge_mw[at]} mW"
    return ""


def _may_raise_to(scope: SearchScope, world: ModelState, n: int, node: Node) -> list[int]:
    """The highest limit that the agent may set by what it knows and by any decision that it would still accept."""
    least, most = scope.least_watts * 1000, scope.most_watts * 1000
    if node.agent is None:
        return [0] * len(node.gpus)
    agent = caps.lapse(node.agent, world.now_s)
    reach = [0] * len(node.gpus)
    for g in range(len(node.gpus)):
        line = agent.lines.get(gpu_id(n, g))
        if line is not None and line.may_raise:
            reach[g] = min(max(line.ceiling_mw, least), most)
    for stored in node.arriving:
        decision = decision_of(stored)
        if decision.only_lowers or caps.judge(agent, decision) is not Acceptance.ACCEPTED:
            continue
        lease = lease_of(agent.boot, decision.heard_boot, decision.heard_clock_s, decision.valid_for_s, world.now_s)
        if lease is not None and lease.ours and lease.ends_s > world.now_s:
            for target in decision.caps:
                g = int(target.gpu.rpartition("-g")[2])
                reach[g] = max(reach[g], min(max(target.setpoint.cap_mw, least), most))
    return reach
