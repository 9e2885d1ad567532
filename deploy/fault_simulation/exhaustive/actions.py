"""What may happen next in a tiny world, and what becomes of the world then. An action is a small tuple of plain values.

Ticks, deliveries, looks and reports may happen at any time and any number of times; rare events as often as the scope
says. Each action is carried out by the real ledger or the real agent core; only cards, bus and clock are written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from deploy.fault_simulation.exhaustive import leaders, nodes
from deploy.fault_simulation.exhaustive.calm import calm, copied
from deploy.fault_simulation.exhaustive.model_state import Copy, ModelState, with_node
from deploy.fault_simulation.exhaustive.scope import RARE, SearchScope
from planner.core.power.site_ledger import advance
from planner.domain.units import mw_from_watts

Action = tuple[str, int, int]
"""Kind, node or choice, and an index; -1 where there is none."""
WEEK_S = 7 * 86_400.0 + 1.0


def enabled(scope: SearchScope, world: ModelState) -> Iterator[Action]:
    """Everything that may happen now."""
    yield "tick", -1, -1
    if not world.order_received:
        yield "receive-order", -1, -1
    if world.old is not None:
        yield "old-tick", -1, -1
    may = dict(zip(RARE, world.left, strict=True))
    for n, node in enumerate(world.nodes):
        if node.agent is not None:
            yield from [("deliver", n, index) for index in range(len(node.arriving))]
            yield "look", n, -1
            yield "report", n, -1
        yield from [("receive-answer", n, index) for index in range(len(node.answers))]
        old = len(node.reports) if scope.late_reports else len(node.reports) - 1
        yield from [("receive-report", n, index) for index in range(old)]
        yield from _rare_of_node(scope, world, n, may)
    yield from _rare(scope, world, may)


def _rare_of_node(scope: SearchScope, world: ModelState, n: int, may: dict[str, int]) -> Iterator[Action]:
    node = world.nodes[n]
    if node.agent is None:
        if may["join"]:
            yield "join", n, -1
        if may["remove"]:
            yield "remove", n, -1
        return
    for kind in ("restart", "reset", "reboot", "switch-off"):
        if may[kind]:
            yield kind, n, -1
    if may["restart"] and scope.partial:
        for index in range(len(node.arriving)):
            yield from [(f"cut-off-{writes}", n, index) for writes in range(scope.gpus)]
    if may["bound"]:
        yield from [("bound", n, index) for index in range(len(scope.bounds_watts))]
    if may["week"]:
        yield "week", n, -1


def _rare(scope: SearchScope, world: ModelState, may: dict[str, int]) -> Iterator[Action]:
    # A leader that decides is connected, and hears an order before much time passes: the rise rule builds on it.
    if may["time"] and world.order_received:
        yield from [("time", -1, index) for index in range(len(scope.steps_s))]
    if may["wants"]:
        yield from [("want", -1, index) for index in range(len(scope.wants))]
    if may["hold"]:
        yield from [("hold", -1, index) for index in range(len(scope.holds))]
    if may["order"]:
        yield from [("order", -1, index) for index in range(len(scope.orders_watts))]
    if may["fail-over"]:
        yield "fail-over", -1, -1
    if may["copy"] and world.copied_epoch is None:
        yield "copy", -1, -1
    if may["put-back"] and world.copied_epoch is not None:
        yield "put-back", -1, -1


def _spent(world: ModelState, kind: str) -> ModelState:
    at = RARE.index(kind)
    return world._replace(left=(*world.left[:at], world.left[at] - 1, *world.left[at + 1 :]))


def carried_out(scope: SearchScope, world: ModelState, action: Action) -> ModelState:
    """The world afterwards."""
    kind, n, index = action
    if kind.startswith("cut-off-"):
        node = nodes.cut_off(scope, n, world.nodes[n], index, int(kind[8:]), world.now_s)
        return _spent(with_node(world, n, node), "restart")
    return DO[kind](scope, world, n, index)


def _tick(scope: SearchScope, world: ModelState, _n: int, _index: int) -> ModelState:
    return leaders.stepped(scope, world)[0]


def _receive_order(scope: SearchScope, world: ModelState, _n: int, _index: int) -> ModelState:
    return leaders.receive_order(scope, world)


def _old_tick(scope: SearchScope, world: ModelState, _n: int, _index: int) -> ModelState:
    """The bus refuses what a leader publishes under a lease that is not the newest; the leader then steps down."""
    orders = () if world.old is None else advance(world.old, scope.config, world.now_s)[1]
    epoch, world = world.old_epoch, world._replace(old=None, old_epoch=-1)
    return leaders.published(scope, world, orders, epoch) if leaders.unfenced() else world


def _deliver(scope: SearchScope, world: ModelState, n: int, index: int) -> ModelState:
    return with_node(world, n, nodes.received(scope, n, world.nodes[n], index, world.now_s))


def _read_hardware(scope: SearchScope, world: ModelState, n: int, _index: int) -> ModelState:
    return with_node(world, n, nodes.read_hardware(scope, n, world.nodes[n], world.now_s))


def _report(scope: SearchScope, world: ModelState, n: int, _index: int) -> ModelState:
    world = with_node(world, n, nodes.reported(scope, n, world.nodes[n], world.now_s))
    return world if scope.late_reports else leaders.receive_report(scope, world, n, -1)


def _restart(scope: SearchScope, world: ModelState, n: int, _index: int) -> ModelState:
    return _spent(with_node(world, n, nodes.started(scope, n, world.nodes[n], world.now_s)), "restart")


def _reset(scope: SearchScope, world: ModelState, n: int, _index: int) -> ModelState:
    return _spent(with_node(world, n, nodes.driver_reset(scope, world.nodes[n])), "reset")


def _reboot(scope: SearchScope, world: ModelState, n: int, _index: int) -> ModelState:
    return _spent(with_node(world, n, nodes.rebooted(scope, n, world.nodes[n], world.now_s)), "reboot")


def _switch_off(_scope: SearchScope, world: ModelState, n: int, _index: int) -> ModelState:
    return _spent(with_node(world, n, nodes.switched_off(world.nodes[n])), "switch-off")


def _join(scope: SearchScope, world: ModelState, n: int, _index: int) -> ModelState:
    return _spent(with_node(world, n, nodes.rebooted(scope, n, world.nodes[n], world.now_s)), "join")


def _bound(scope: SearchScope, world: ModelState, n: int, index: int) -> ModelState:
    watts = scope.bounds_watts[index]
    mw = None if watts is None else mw_from_watts(watts)
    return _spent(with_node(world, n, nodes.bounded(world.nodes[n], n, mw)), "bound")


def _remove(scope: SearchScope, world: ModelState, n: int, _index: int) -> ModelState:
    return _spent(leaders.removed(scope, world, n), "remove")


def _week(scope: SearchScope, world: ModelState, n: int, _index: int) -> ModelState:
    """A week in which node ``n`` is silent, while the others go on; what ages away on the bus is gone afterwards."""
    others = frozenset(range(scope.nodes)) - {n}
    world = calm(scope, world._replace(now_s=world.now_s + WEEK_S), 4.0, others)
    kept = nodes.kept(world.nodes[n], world.now_s)
    return _spent(with_node(world, n, kept), "week")


def _time(scope: SearchScope, world: ModelState, _n: int, index: int) -> ModelState:
    if scope.reports_in_time:
        for n, node in enumerate(world.nodes):
            world = world if node.agent is None else _report(scope, world, n, -1)
    return _spent(world._replace(now_s=world.now_s + scope.steps_s[index]), "time")


def _want(scope: SearchScope, world: ModelState, _n: int, index: int) -> ModelState:
    return _spent(leaders.wanted(scope, world, index), "wants")


def _order(scope: SearchScope, world: ModelState, _n: int, index: int) -> ModelState:
    watts = scope.orders_watts[index]
    ordered = None if watts is None else mw_from_watts(watts)
    level = scope.config.budget_mw if ordered is None else ordered
    budgets = (*world.budgets, (world.now_s, level))
    return _spent(world._replace(budgets=budgets, ordered_mw=ordered), "order")


def _hold(scope: SearchScope, world: ModelState, _n: int, index: int) -> ModelState:
    return _spent(leaders.held(scope, world, index), "hold")


def _fail_over(scope: SearchScope, world: ModelState, _n: int, _index: int) -> ModelState:
    old = (world.leader, world.epoch) if scope.zombie else (None, -1)
    world = leaders.succeeded(scope, world, world.epoch + 1, doubted=leaders.unmarked(world.leader))
    return _spent(world._replace(old=old[0], old_epoch=old[1]), "fail-over")


def _copy(scope: SearchScope, world: ModelState, _n: int, _index: int) -> ModelState:
    return _spent(copied(scope, world), "copy")


def _put_back(scope: SearchScope, world: ModelState, _n: int, _index: int) -> ModelState:
    """The bus is put back from its copy: messages in flight are lost, and a planner leads over what the copy holds."""
    back = []
    for node in world.nodes:
        copy = node.copy or Copy((), ())
        strays = node.decisions if scope.strays else ()
        answers = copy.answers if scope.answers_restored else node.answers
        back.append(node._replace(decisions=copy.decisions, answers=answers, reports=(), strays=strays, copy=None))
    epoch = (world.copied_epoch or 0) + 1
    world = world._replace(nodes=tuple(back), copied_epoch=None)
    return _spent(leaders.succeeded(scope, world, epoch, doubted=scope.copy_recognised), "put-back")


def _receive_answer(scope: SearchScope, world: ModelState, n: int, index: int) -> ModelState:
    return leaders.receive_answer(scope, world, n, index)


def _receive_report(scope: SearchScope, world: ModelState, n: int, index: int) -> ModelState:
    return leaders.receive_report(scope, world, n, index)


DO: dict[str, Callable[[SearchScope, ModelState, int, int], ModelState]] = {
    "tick": _tick,
    "receive-order": _receive_order,
    "old-tick": _old_tick,
    "deliver": _deliver,
    "look": _read_hardware,
    "report": _report,
    "receive-answer": _receive_answer,
    "receive-report": _receive_report,
    "restart": _restart,
    "reset": _reset,
    "reboot": _reboot,
    "switch-off": _switch_off,
    "join": _join,
    "bound": _bound,
    "remove": _remove,
    "week": _week,
    "time": _time,
    "want": _want,
    "order": _order,
    "fail-over": _fail_over,
    "copy": _copy,
    "put-back": _put_back,
    "hold": _hold,
}
