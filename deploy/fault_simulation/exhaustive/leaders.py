"""What the leading planner does in a tiny world: the real ledger absorbs, wants, advances, and is inherited."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from deploy.fault_simulation.exhaustive.model_state import ModelState, Stored, gpu_id, node_id, with_node
from deploy.fault_simulation.exhaustive.nodes import aged
from deploy.fault_simulation.exhaustive.scope import SITE, SearchScope
from planner.core.power import site_ledger
from planner.core.power.incarnation import FOREIGN_EPOCH, refuses
from planner.core.power.site_state import PowerState
from planner.domain.observation import BudgetCommand, HoldCommand, NodeCommand, Observation, PowerAckSeen, StoredCaps
from planner.domain.plan import PowerDecision
from planner.domain.units import GpuSetpoint, mw_from_watts


def absorb(scope: SearchScope, world: ModelState, seen: Observation) -> ModelState:
    """The leader takes something in."""
    return world._replace(leader=site_ledger.absorb(world.leader, seen, scope.config, world.now_s))


def receive_report(scope: SearchScope, world: ModelState, n: int, index: int) -> ModelState:
    """A report of node ``n`` reaches the leader, however old."""
    seen = aged(world.nodes[n].reports[index], world.now_s)
    return absorb(scope, world, Observation(nodes={seen.node: seen}))


def receive_answer(scope: SearchScope, world: ModelState, n: int, index: int) -> ModelState:
    """An answer of node ``n`` reaches the leader."""
    node = world.nodes[n]
    answer = _read(node.answers[index], node.incarnation)
    return _with_new_incarnation(absorb(scope, world, Observation(power_acks=(answer,))), n, answer)


def _with_new_incarnation(world: ModelState, n: int, answer: PowerAckSeen) -> ModelState:
    """As the publisher of decisions does: ids begin anew where the agent would refuse the leader's."""
    node = world.nodes[n]
    return _renamed(world, n) if refuses(answer, world.epoch, node.incarnation) else world


def _renamed(world: ModelState, n: int) -> ModelState:
    """Node ``n``'s ids are of a new counting."""
    count = world.nodes[n].incarnations + 1
    return with_node(world, n, world.nodes[n]._replace(incarnation=str(count), incarnations=count))


def _read(answer: PowerAckSeen, expected: str) -> PowerAckSeen:
    """As the planner's inbox reads it: an answer to another incarnation is a predecessor's."""
    return answer if answer.incarnation in {"", expected} else replace(answer, epoch=FOREIGN_EPOCH)


def wanted(scope: SearchScope, world: ModelState, choice: int) -> ModelState:
    """The optimiser's setpoints, in full, as each tick of the planner names them."""
    flat = iter(scope.wants[choice])
    gpus = [gpu_id(n, g) for n in range(scope.nodes) for g in range(scope.gpus)]
    setpoints = {gpu: GpuSetpoint(mw_from_watts(watts)) for gpu in gpus if (watts := next(flat))}
    if scope.holds:
        world = world._replace(pools=setpoints)
    return world._replace(leader=site_ledger.want(world.leader, setpoints))


def held(scope: SearchScope, world: ModelState, choice: int) -> ModelState:
    """A profiler writes a hold, and the leader receives it. It is not renewed: its profiler may be dead already."""
    watts, for_s = scope.holds[choice]
    number = len(world.holds)
    gpus = (gpu_id(0, scope.gpus - 1),)
    hold = HoldCommand(node_id(0), f"h{number}", gpus, mw_from_watts(watts), world.now_s, for_s, number)
    return absorb(scope, world._replace(holds=(*world.holds, hold)), Observation(hold_commands=(hold,)))


def _with_holds(scope: SearchScope, world: ModelState) -> ModelState:
    """The leader after what each of its steps begins with: holds that have ended are gone, the others are judged."""
    world = absorb(scope, world, Observation())
    if world.pools is None:
        return world
    return world._replace(leader=site_ledger.want_with_holds(world.leader, world.pools, scope.config, world.now_s))


def stepped(scope: SearchScope, world: ModelState) -> tuple[ModelState, PowerState, tuple[PowerDecision, ...]]:
    """One step of the leader: the world with its decisions published, its state before, and the decisions."""
    world = _with_holds(scope, world) if scope.holds else world
    before = world.leader
    after, orders = site_ledger.advance(before, scope.config, world.now_s)
    return published(scope, world._replace(leader=after), orders, world.epoch), before, orders


def published(scope: SearchScope, world: ModelState, orders: Iterable[PowerDecision], epoch: int) -> ModelState:
    """Decisions on their subjects; the oldest that may still arrive are forgotten."""
    for order in orders:
        n = int(order.node[1:])
        node = world.nodes[n]
        fresh = Stored(order, epoch, node.incarnation, world.now_s, world.known_budgets)
        world = with_node(world, n, node._replace(decisions=(*node.decisions, fresh)[-scope.decisions :]))
    return world


def succeeded(scope: SearchScope, world: ModelState, epoch: int, *, doubted: bool = False) -> ModelState:
    """Another planner leads: it reads the last decision, answer and report of each node, as production does."""
    stored = [_stored(node.decisions[-1]) for node in world.nodes if node.decisions]
    state = site_ledger.initial(scope.config, epoch, world.now_s, stored, doubted=doubted)
    nodes = [
        node._replace(incarnation=node.decisions[-1].incarnation if node.decisions else node.incarnation)
        for node in world.nodes
    ]
    world = world._replace(leader=state, epoch=epoch, nodes=tuple(nodes))
    if doubted:
        for n, node in enumerate(nodes):
            world = _renamed(world, n) if node.decisions else world
        nodes = list(world.nodes)
    reports = {} if scope.telemetry_lost else {n: node.reports[-1] for n, node in enumerate(nodes) if node.reports}
    seen = Observation(
        nodes={node_id(n): aged(report, world.now_s) for n, report in reports.items()},
        power_acks=tuple([_read(node.answers[-1], node.incarnation) for node in nodes if node.answers]),
        budget_commands=budget_commands(world),
        node_commands=node_commands(world),
        hold_commands=world.holds,
    )
    world = absorb(scope, world, seen)._replace(known_budgets=len(world.budgets))
    for answer in seen.power_acks:
        world = _with_new_incarnation(world, int(answer.node[1:]), answer)
    return world


def unmarked(state: PowerState) -> bool:
    """Whether a leader has recognised an old copy that the bus does not mark as one yet."""
    return state.doubted and any(not (page.proven or page.marked) for page in state.nodes.values())


def _stored(last: Stored) -> StoredCaps:
    """The last decision as the planner reads it back from the bus."""
    order = last.order
    setpoints = {cap.gpu: cap.setpoint for cap in order.caps}
    charged = {cap.gpu: cap.charged_mw for cap in order.caps if cap.charged_mw is not None}
    highest = {cap.gpu: cap.highest_mw for cap in order.caps if cap.highest_mw is not None}
    return StoredCaps(order.node, order.decision_id, setpoints, charged, last.published_s, highest)


def budget_commands(world: ModelState) -> tuple[BudgetCommand, ...]:
    """The operator's budget command, as stored on the bus; empty without one."""
    if len(world.budgets) < 2:
        return ()
    since_s, _ = world.budgets[-1]
    return (BudgetCommand(SITE, world.ordered_mw, since_s, None, 0.0, len(world.budgets)),)


def node_commands(world: ModelState) -> tuple[NodeCommand, ...]:
    """All commands for nodes: a new leader reads the whole history."""
    return tuple([NodeCommand(node_id(n), "remove", i, "", at_s) for i, (n, at_s) in enumerate(world.removals)])


def removed(scope: SearchScope, world: ModelState, n: int) -> ModelState:
    """An operator removes a node, and the leader receives the command."""
    world = world._replace(removals=(*world.removals, (n, world.now_s)))
    return absorb(scope, world, Observation(node_commands=node_commands(world)[-1:]))


def receive_order(scope: SearchScope, world: ModelState) -> ModelState:
    """The newest budget order reaches the leader."""
    world = absorb(scope, world, Observation(budget_commands=budget_commands(world)))
    return world._replace(known_budgets=len(world.budgets))


def unfenced() -> bool:
    """Whether the bus takes batches of a leader that was replaced: never, unless a mutation replaces this function."""
    return False
