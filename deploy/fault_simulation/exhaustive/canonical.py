"""Which worlds are the same for everything that may still happen: one short key for all of them.

``README.md`` says why each reduction is sound: "Canonical states", in the order of this file.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Callable, Iterable
from typing import Any

from agent.core import caps
from deploy.fault_simulation.exhaustive.model_state import Gpu, ModelState, Node, gpu_id, node_id
from deploy.fault_simulation.exhaustive.scope import SearchScope
from planner.core.power.node_ledger import NEVER_S, NodeLedger
from planner.core.power.site_state import PowerState, Removed
from planner.domain.observation import HoldCommand
from planner.domain.units import GpuSetpoint

Key = tuple[Any, ...]
_HALF = 2
"""All instants of a search are multiples of half a second."""


def key_of(scope: SearchScope, world: ModelState) -> int:
    """A 64-bit number, the same in every process."""
    return key_of_parts(scope, world, [node_part(scope, world, n) for n in range(scope.nodes)])


def node_part(scope: SearchScope, world: ModelState, n: int) -> bytes:
    """Node ``n`` without what can make no difference any more.

    Read of the world: the instant, epochs, budgets, removals, the node, its pages, and what was wanted of it.
    """
    return marshal.dumps(_Canon(scope, world, n).key(), 2)


def key_of_parts(scope: SearchScope, world: ModelState, parts: list[bytes]) -> int:
    """The key of a world whose nodes' parts are known."""
    if scope.symmetric and scope.nodes > 1:
        parts = sorted(parts)
    rest = (
        _site_key(scope, world, world.leader),
        _budgets(scope, world),
        world.ordered_mw,
        world.order_received or world.largest_known_mw(world.known_budgets),
        world.left,
        _pools(scope, world),
        None if world.old is None else (_site_key(scope, world, world.old), world.old_epoch - world.epoch),
        None if world.copied_epoch is None else world.copied_epoch - world.epoch,
    )
    hashed = hashlib.blake2b(marshal.dumps(rest, 2), digest_size=8)
    for part in parts:
        hashed.update(part)
    return int.from_bytes(hashed.digest(), "little")


def _age(now_s: float, then_s: float, most_s: float) -> int:
    """How long ago in half seconds; everything beyond ``most_s``, the largest age the code asks for, is one."""
    return round(_HALF * min(now_s - then_s, most_s + 0.5))


def _ahead(now_s: float, then_s: float) -> int:
    """How far ahead in half seconds; what is over is over."""
    return round(_HALF * max(0.0, then_s - now_s))


def _setpoint(setpoint: GpuSetpoint | None) -> Key | None:
    """A plain tuple: marshal takes no other."""
    return None if setpoint is None else tuple(setpoint)


def _site_key(scope: SearchScope, world: ModelState, state: PowerState) -> Key:
    config, now_s = scope.config, world.now_s
    return (
        _ahead(now_s, state.raises_from_s),
        state.wants is None,
        -1 if state.over_since_s is None else _age(now_s, state.over_since_s, config.compliance_s),
        state.frozen,
        state.share,
        tuple([order.budget_mw for order in state.orders]),
        state.doubted,
        _holds(world, state.holds, state) if scope.holds else (),
    )


def _holds(world: ModelState, holds: Iterable[HoldCommand], state: PowerState) -> Key:
    """Holds with the time that is left of each, and what became of it."""
    rows = []
    for hold in holds:
        outcome = state.hold_outcomes.get(hold.hold_id)
        code = "" if outcome is None else str(outcome.reason.value)
        rows.append((hold.sequence, hold.cap_mw, _ahead(world.now_s, hold.until_s), code))
    return tuple(rows)


def _pools(scope: SearchScope, world: ModelState) -> Key:
    """What is judged anew at each step where there may be holds: the wants of pools, and all holds for a new leader."""
    if not scope.holds or world.pools is None:
        return ()
    wants = tuple(sorted([(str(gpu), setpoint.cap_mw) for gpu, setpoint in world.pools.items()]))
    return (wants, _holds(world, [hold for hold in world.holds if hold.until_s > world.now_s], world.leader))


def _budgets(scope: SearchScope, world: ModelState) -> Key:
    """The newest budget, and larger ones for as long as the rise rule looks back."""
    last, now_s = world.budgets[-1][1], world.now_s
    until_s, kept = now_s, []
    for from_s, mw in reversed(world.budgets):
        if mw != last and now_s - until_s <= scope.rise_window_s:
            kept.append((mw, _age(now_s, until_s, scope.rise_window_s)))
        until_s = from_s
    return (last, *kept)


class _Canon:
    """One node's part: its card, its agent, its page in each ledger, and what is on its subjects."""

    def __init__(self, scope: SearchScope, world: ModelState, n: int) -> None:
        self.scope, self.world, self.n = scope, world, n
        self.now_s = world.now_s
        self.node: Node = world.nodes[n]
        name = node_id(n)
        self.pages: list[NodeLedger | None] = [world.leader.nodes.get(name)]
        self.states = [world.leader]
        if world.old is not None:
            self.pages.append(world.old.nodes.get(name))
            self.states.append(world.old)
        if self.node.agent is not None:
            self.node = self.node._replace(agent=caps.lapse(self.node.agent, self.now_s))
        self.base = self._first_id()
        self.then = self._times()
        self.machines: dict[str, int] = {}
        self.boots: dict[str, int] = {}
        self.incarnations: dict[str, int] = {}

    def _copied(self) -> tuple[Any, Any]:
        copy = self.node.copy
        return ((), ()) if copy is None else (copy.decisions, copy.answers)

    def _first_id(self) -> int:
        """The smallest id that is still in use."""
        decisions, answers = self._copied()
        ids = [d.order.decision_id for d in (*self.node.arriving, *decisions)]
        ids += [a.decision_id for a in (*self.node.answers, *answers)]
        if self.node.agent is not None and self.node.agent.decision_id >= 0:
            ids.append(self.node.agent.decision_id)
        for page, state in zip(self.pages, self.states, strict=True):
            if page is not None:
                ids += [page.next_id, *[s.decision_id for s in page.sent]]
            ids += [state.past_ids[name] for name in (node_id(self.n),) if name in state.past_ids]
        return min(ids, default=0)

    def _times(self) -> Callable[[float | None], int]:
        """Past instants: exact within the largest age that is asked for, and in order beyond it."""
        most_s = max(self.scope.config.lease_s, self.scope.config.stale_s)
        copied, copied_answers = self._copied()
        past: set[float | None] = {r.made_s for r in self.node.reports}
        past |= {a.clock_s for a in (*self.node.answers, *copied_answers)}
        past |= {d.order.heard_clock_s for d in (*self.node.arriving, *copied)}
        for page, state in zip(self.pages, self.states, strict=True):
            if page is not None:
                past |= {page.clock_s, page.heard_clock_s, page.reported_s}
                past |= {page.inherited_s} if self.scope.rare.get("remove") else set()
            if (gone := state.removed.get(node_id(self.n))) is not None:
                past |= {gone.at_s, gone.clock_s}
        past |= {at_s for n, at_s in self.world.removals if n == self.n}
        past |= {d.published_s for d in self._stored_times()}
        older = sorted({t for t in past if t is not None and self.now_s - t > most_s}, reverse=True)
        rank = {t: round(_HALF * most_s) + 1 + i for i, t in enumerate(older)}

        def then(time_s: float | None) -> int:
            if time_s is None:
                return -1
            return rank[time_s] if time_s in rank else round(_HALF * (self.now_s - time_s))

        return then

    def _stored_times(self) -> tuple[Any, ...]:
        """Decisions whose instant of storing may still matter: where nodes are removed by order."""
        if not self.scope.rare.get("remove"):
            return ()
        return (*self.node.arriving, *self._copied()[0])

    def _boot(self, boot: str) -> Key:
        """Processes and machines by the order in which they are met."""
        if not boot:
            return ()
        machine = self.machines.setdefault(boot.partition("/")[0], len(self.machines))
        return (machine, self.boots.setdefault(boot, len(self.boots)))

    def _incarnation(self, name: str) -> int:
        """Incarnations by the order in which they are met."""
        return self.incarnations.setdefault(name, len(self.incarnations)) if name else -1

    def _past(self) -> Key:
        """Incarnations that the agent refuses and that are still in use elsewhere. Call it last."""
        past = frozenset() if self.node.agent is None else self.node.agent.past
        return tuple(sorted([self.incarnations[name] for name in past if name in self.incarnations]))

    def _id(self, number: int) -> int:
        return max(number - self.base, -1)

    def _epoch(self, epoch: int) -> int:
        return epoch - self.world.epoch

    def key(self) -> Key:
        """Everything of this node."""
        node = self.node
        gpus = tuple([self._gpu(gpu) for gpu in node.gpus])
        agent = None if node.agent is None else self._agent(node.agent)
        pages = tuple([None if page is None else self._page(page) for page in self.pages])
        gone = tuple([self._removed(state) for state in self.states])
        decisions, answers = self._copied()
        return (
            gpus,
            agent,
            pages,
            gone,
            tuple([self.then(at_s) for n, at_s in self.world.removals if n == self.n]),
            self._incarnation(node.incarnation),
            tuple(map(self._decision, node.decisions)),
            tuple(map(self._decision, node.strays)),
            tuple(map(self._answer, node.answers)),
            tuple([(self._seen(r.seen), self.then(r.made_s)) for r in node.reports]),
            None if node.copy is None else (tuple(map(self._decision, decisions)), tuple(map(self._answer, answers))),
            self._past(),
            self._wanted() if self.scope.rare.get("remove") or self.scope.rare.get("join") else (),
        )

    def _wanted(self) -> Key:
        """What a page that is made anew will want: pages go and come where nodes do."""
        gpus = [gpu_id(self.n, g) for g in range(self.scope.gpus)]
        wants = [None if state.wants is None else state.wants.get(gpu) for state in self.states for gpu in gpus]
        return tuple([None if want is None else _setpoint(want) for want in wants])

    def _gpu(self, gpu: Gpu) -> Key:
        lags = self.now_s < gpu.drew_until_s
        return (gpu.set_mw, gpu.lawful_mw, (gpu.drew_mw, _ahead(self.now_s, gpu.drew_until_s)) if lags else None)

    def _agent(self, agent: caps.AgentState) -> Key:
        fresh = agent.decision_id < 0
        lines: list[Key | None] = []
        for g in range(self.scope.gpus):
            line = agent.lines.get(gpu_id(self.n, g))
            if line is None:
                lines.append(None)
                continue
            waits = line.wrote_mw if self.now_s < line.retry_s else None
            retry = 0 if waits is None else _ahead(self.now_s, line.retry_s)
            lines.append(
                (line.ceiling_mw, line.may_raise, _setpoint(line.setpoint), line.fallback_mw, waits, retry,
                 line.resets == self.node.resets, line.refused, line.lost)
            )  # fmt: skip
        return (
            self._boot(agent.boot),
            _age(self.now_s, agent.started_s, self.scope.config.lease_s) if fresh else None,
            None if fresh else (self._epoch(agent.epoch), self._id(agent.decision_id)),
            self._incarnation(agent.incarnation),
            None if agent.ends_s is None else _ahead(self.now_s, agent.ends_s),
            agent.only_lowers,
            tuple(lines),
            tuple(sorted(agent.bounds.items())),
        )

    def _page(self, page: NodeLedger) -> Key:
        config, now_s = self.scope.config, self.now_s
        held = page.cost_mw != page.charge_mw
        return (
            (page.cards.default_mw, page.cards.min_mw, page.cards.max_mw),
            page.hardware_mw,
            page.proven,
            page.healthy,
            page.busy,
            tuple([(self._id(s.decision_id), s.caps_mw) for s in page.sent]),
            page.caps_mw,
            page.charge_mw,
            page.cost_mw if held else None,
            self._id(page.acked_id),
            self._id(page.next_id),
            self._boot(page.boot),
            self.then(page.clock_s),
            self._boot(page.heard_boot),
            self.then(page.heard_clock_s),
            self._then_or_never(page.reported_s),
            -1 if page.sent_s == NEVER_S else _age(now_s, page.sent_s, max(config.lease_s / 3.0, config.answer_s)),
            page.sent_share,
            page.marked,
            self._then_or_never(page.inherited_s) if self.scope.rare.get("remove") else None,
            -1 if page.unanswered_s is None else _age(now_s, page.unanswered_s, config.answer_s),
            _age(now_s, page.raised_s, config.settle_s),
            _ahead(now_s, page.held_until_s) if held else 0,
            page.seen is not None,
            None if page.wanted is None else tuple(map(_setpoint, page.wanted)),
            page.goal_mw,
        )

    def _then_or_never(self, time_s: float) -> int:
        return -1 if time_s == NEVER_S else self.then(time_s)

    def _removed(self, state: PowerState) -> Key | None:
        name = node_id(self.n)
        gone: Removed | None = state.removed.get(name)
        ids = state.past_ids.get(name)
        return (
            None if gone is None else (self.then(gone.at_s), self._boot(gone.boot), self.then(gone.clock_s)),
            None if ids is None else self._id(ids),
            sum([n == self.n for n, _ in self.world.removals[: state.node_commands.get(name, -1) + 1]]),
        )

    def _decision(self, stored: Any) -> Key:
        order = stored.order
        largest = self.world.largest_known_mw(stored.known) if self.scope.rare.get("order") else 0
        return (
            self._id(order.decision_id),
            self._epoch(stored.epoch),
            self._incarnation(stored.incarnation),
            tuple([(_setpoint(cap.setpoint), cap.fallback_mw, cap.charged_mw, cap.highest_mw) for cap in order.caps]),
            self._boot(order.heard_boot),
            self.then(order.heard_clock_s),
            order.only_lowers,
            largest,
            self.then(stored.published_s) if self._stored_times() else None,
        )

    def _answer(self, answer: Any) -> Key:
        return (
            self._epoch(answer.epoch),
            self._id(answer.decision_id),
            self._incarnation(answer.incarnation),
            answer.status == "rejected",
            tuple([(g.requested_mw, g.enforced_mw, g.healthy, g.reset) for g in answer.gpus]),
            self._boot(answer.boot),
            self.then(answer.clock_s),
        )

    def _seen(self, seen: Any) -> Key:
        return (tuple([(g.requested_mw, g.enforced_mw) for g in seen.gpus.values()]), self._boot(seen.boot))
