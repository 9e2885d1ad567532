"""Checks the budget after every event by adding up hardware limits. Independent of ledgers, charges and decisions.

Two rules, both in ``planner/core/power/README.md``.
Rise: a sum above the budget may only fall. An event after which the sum is higher than before must leave it within
the largest budget of the last lease (grants made under it may still be on their way).
Comply: once all needed parties have been in order for the compliance time, the sum is within the largest budget of
that time, unless the minimum caps of reachable nodes plus the limits of unreachable ones exceed it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from deploy.fault_simulation.hardware import Card
from planner.domain.ids import GpuId
from planner.domain.units import Milliwatts


@dataclass(frozen=True, slots=True)
class IssuedCommand:
    """A budget command in true time. ``budget_mw`` None: back to the site's own budget."""

    budget_mw: Milliwatts | None
    from_s: float
    until_s: float | None
    ramp_s: float
    known_s: float


class Budget:
    """The site's true budget, written independently of the planner's: two implementations check each other."""

    def __init__(self, base_mw: int) -> None:
        self.base_mw = base_mw
        self.commands: list[IssuedCommand] = []
        self._constant_until_s = float("-inf")
        self._level_mw = base_mw

    def add(self, command: IssuedCommand) -> None:
        """Add a newer command: it overrides all earlier ones while it is in force."""
        self.commands = [o for o in self.commands if o.until_s is None or o.until_s > command.known_s - 120.0][-40:]
        self.commands.append(command)
        self._constant_until_s = float("-inf")

    def at_mw(self, time_s: float) -> int:
        """The budget at an instant, by the commands issued until then."""
        return self._level(time_s, len(self.commands), time_s)

    def _level(self, time_s: float, count: int, known_s: float) -> int:
        """The budget by the first ``count`` commands, of those issued at ``known_s``."""
        while count:
            count -= 1
            command = self.commands[count]
            if (
                command.known_s > known_s
                or time_s < command.from_s
                or (command.until_s is not None and time_s >= command.until_s)
            ):
                continue
            goal = self.base_mw if command.budget_mw is None else command.budget_mw
            share = 1.0 if command.ramp_s <= 0 else (time_s - command.from_s) / command.ramp_s
            if share >= 1.0:
                return goal
            start = self._level(command.from_s - 1e-6, count, known_s)
            return int(start + (goal - start) * share)
        return self.base_mw

    def now_mw(self, now_s: float) -> int:
        """``at_mw`` for a clock that only goes forward, remembered until something changes."""
        if now_s >= self._constant_until_s:
            self._level_mw = self.at_mw(now_s)
            edges = [
                edge
                for o in self.commands
                for edge in (o.from_s, o.known_s, o.until_s)
                if edge is not None and edge > now_s
            ]
            ramping = any(o.ramp_s > 0 and o.from_s <= now_s <= o.from_s + o.ramp_s for o in self.commands)
            self._constant_until_s = now_s + 0.05 if ramping else min(edges, default=float("inf"))
        return self._level_mw

    def largest_mw(self, start_s: float, end_s: float) -> int:
        """The largest budget within ``[start, end]``."""
        times = {start_s, end_s}
        for command in self.commands:
            for edge in (command.from_s, command.from_s + command.ramp_s, command.until_s, command.known_s):
                if edge is not None and start_s < edge < end_s:
                    times |= {edge - 1e-6, edge}
        return max(self.at_mw(time_s) for time_s in times)


@dataclass(frozen=True, slots=True)
class Failure:
    """A broken promise: when, which, and the numbers."""

    time_s: float
    rule: str
    sentence: str


@dataclass(slots=True)
class Statistics:
    """Statistics of sums and budgets in a run."""

    over_s: list[float] = field(default_factory=list)
    """Duration of each time above the budget, in seconds."""
    judged: int = 0
    """How often the comply rule applied."""


class Checker:
    """Applies the rules to one world. ``parties``: since when each needed party has been in order."""

    def __init__(
        self,
        cards: list[Card],
        budget: Budget,
        apart_mw: int,
        host_mw: int,
        rise_window_s: float,
        comply_s: float,
        clear_s: float,
        parties: Parties,
        workers: bool = False,
    ) -> None:
        self.cards = cards
        self.budget = budget
        self.apart_mw = apart_mw
        self.host_mw = host_mw
        self.hosts: dict[int, float] = {card.node: 0.0 for card in cards}
        """Nodes whose host counts, and since when; one that was switched on counts once it could be known."""
        self.joining: dict[int, float] = {}
        self.workers = workers
        """Only GPUs that a pod of ours holds count."""
        self.unannounced: dict[GpuId, float] = {}
        """GPUs on which one of ours has started that no decision asked for, and since when: they count once that could
        be known and made good."""
        self.rise_window_s = rise_window_s
        self.comply_s = comply_s
        self.clear_s = clear_s
        self.parties = parties
        self.sum_mw = self._sum()
        self.statistics = Statistics()
        self._over_since_s: float | None = None

    @property
    def overhead_mw(self) -> int:
        """Margin plus host overhead, in milliwatts."""
        return self.apart_mw + len(self.hosts) * self.host_mw

    def switched(self, node: int, now_s: float, *, on: bool) -> None:
        """A node loses its power or gets it back; the latter is unknown to planners until it reports."""
        self.hosts.pop(node, None)
        self.joining.pop(node, None)
        if on:
            self.joining[node] = now_s

    def _sum(self) -> int:
        total = self.apart_mw + len(self.hosts) * self.host_mw
        for card in self.cards:
            if self.workers and not self._counts(card):
                continue
            lawful, limit = card.lawful_mw, card.requested_mw
            total += limit if lawful is None or limit < lawful else lawful
        return total

    def _counts(self, card: Card) -> bool:
        return card.pod is not None and card.pod.pool is not None and card.gpu not in self.unannounced

    def started(self, card: Card, now_s: float) -> None:
        """A pod of ours starts on ``card`` that no decision asked for."""
        self.unannounced[card.gpu] = now_s

    def ended(self, card: Card) -> None:
        """No pod holds ``card`` any more."""
        self.unannounced.pop(card.gpu, None)

    def check(self, now_s: float) -> Failure | None:
        """Both rules at one instant, after one event."""
        before, total = self.sum_mw, self._sum()
        self.sum_mw = total
        level = self.budget.now_mw(now_s)
        if total <= level:
            if self._over_since_s is not None:
                self._close(now_s)
            return None
        if self._over_since_s is None:
            self._over_since_s = now_s
        if total > before:
            largest = self.budget.largest_mw(max(0.0, now_s - self.rise_window_s), now_s)
            if total > largest:
                text = f"hardware limits rose from {before} to {total} mW, above the {largest} mW allowed"
                return Failure(now_s, "rise", text)
        return self._comply(total, now_s)

    def _close(self, now_s: float) -> None:
        self.statistics.over_s.append(now_s - (self._over_since_s or now_s))
        self._over_since_s = None

    def _comply(self, total: int, now_s: float) -> Failure | None:
        if now_s - (self._over_since_s or now_s) < self.comply_s:
            return None
        largest = self.budget.largest_mw(now_s - self.comply_s, now_s)
        if total <= largest or not self.parties.planner_ok(now_s, self.comply_s):
            return None
        self.statistics.judged += 1
        least = self.overhead_mw
        for card in self.cards:
            if self.workers and not self._counts(card):
                continue
            ok = self.parties.node_ok(card.node, now_s, self.comply_s) and now_s - card.ok_since_s >= self.comply_s
            least += card.floor_mw if ok else card.counted_mw
        if least > largest:
            return None
        text = f"hardware limits of {total} mW stand above {largest} mW although {least} mW could be reached"
        return Failure(now_s, "comply", text)

    def undisturb(self, now_s: float) -> None:
        """Count in full what others raised, once its agent could have reported and undone it. Called every second."""
        for card in self.cards:
            known = card.lawful_mw is not None and now_s - card.disturbed_s > self.clear_s
            if known and self.parties.node_ok(card.node, now_s, self.clear_s):
                card.lawful_mw = None
        for node, since_s in list(self.joining.items()):
            if now_s - since_s > self.clear_s and self.parties.node_ok(node, now_s, self.clear_s):
                self.hosts[node] = self.joining.pop(node)
        for card in self.cards:
            since = self.unannounced.get(card.gpu)
            known = since is not None and now_s - since > self.clear_s
            if known and self.parties.node_ok(card.node, now_s, self.clear_s):
                self.unannounced.pop(card.gpu, None)
        self.sum_mw = self._sum()


@dataclass(slots=True)
class Parties:
    """Since when each party has been up, awake and connected without a lost message."""

    planner_ok: Callable[[float, float], bool]
    node_ok: Callable[[int, float, float], bool]
