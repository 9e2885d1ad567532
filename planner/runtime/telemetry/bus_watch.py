"""Problems around a planner: with the lead, with other planners, and with the senders on the bus.

Fed by the inbox; read by health pages, metrics, logs and plan records, which all name a problem in the same words.
Decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from planner.ports import Clock, Standing
from planner.runtime.telemetry.liveness import Liveness

log = logging.getLogger(__name__)

QUIET_S = 60.0
"""Seconds without a report from any node before that is a problem for a leader, and seconds for which a second agent is
named after it was last seen."""
NAMED_S = 300.0
"""Seconds for which a message that was left out is named: long enough for a tick's record and a scrape to show it."""
MOST_NAMED = 1000
REMEMBERED_BOOTS = 8
LOG_EVERY_S = 1.0


class ProblemCode(StrEnum):
    """Kinds of problems; label ``problem`` of the metric, and code in plan records."""

    NOT_LEADING = "not_leading"
    SECOND_AGENT = "second_agent"
    FLOODING = "flooding"
    OTHER_BUDGET = "other_budget"
    NO_NODE = "no_node"
    IMPLAUSIBLE = "implausible"


@dataclass(frozen=True, slots=True)
class BusProblem:
    """One problem: ``who`` is the node, site or planner that it is about, or empty; ``text`` is for operators."""

    code: ProblemCode
    who: str
    text: str


@dataclass(slots=True)
class _Reports:
    """The starts of agents that reported for one node. A restart replaces a start for good: one that returns runs."""

    boot: str
    received_s: float = float("-inf")
    replaced: list[str] = field(default_factory=list)
    doubled_s: float = float("-inf")


class BusWatch:
    """One process'. ``budgets_watts``: by site, as in its settings; ``clock``: the planner's.

    ``expects_nodes``: whether agents are meant to report; a planner without power decisions needs none.
    """

    def __init__(
        self,
        vitals: Liveness,
        standing: Callable[[], Standing],
        budgets_watts: Mapping[str, float],
        clock: Clock,
        *,
        expects_nodes: bool = True,
    ) -> None:
        self._expects_nodes = expects_nodes
        self._vitals = vitals
        self._standing = standing
        self._budgets_watts = budgets_watts
        self._clock = clock
        self._reports: dict[str, _Reports] = {}
        self._received_s = float("-inf")
        self._noted: dict[tuple[ProblemCode, str], tuple[float, str]] = {}
        self._logged: dict[tuple[ProblemCode, str], str] = {}

    def reported(self, node: str, boot: str) -> None:
        """Note telemetry of ``node``. ``boot`` names one start of one agent; empty if it is not reported."""
        now_s = self._received_s = self._clock()
        known = self._reports.setdefault(node, _Reports(boot))
        known.received_s = now_s
        if boot == known.boot or not boot:
            return
        if boot in known.replaced:
            known.doubled_s = now_s
        others = [one for one in known.replaced if one not in {boot, known.boot}]
        known.boot, known.replaced = boot, [known.boot, *others][:REMEMBERED_BOOTS]

    def note(self, code: ProblemCode, who: str, text: str) -> None:
        """Name a single event as a problem for ``NAMED_S``. ``who``: the node, deployment or site concerned."""
        now_s = self._clock()
        self._noted.pop((code, who), None)
        if len(self._noted) >= MOST_NAMED:
            self._noted.pop(next(iter(self._noted)))
        self._noted[code, who] = (now_s, f"{who}: {text}" if who else text)

    def ages_s(self) -> dict[str, float]:
        """Seconds since the last report of each node, by name."""
        now_s = self._clock()
        return {node: max(0.0, now_s - reports.received_s) for node, reports in sorted(self._reports.items())}

    def problems(self) -> tuple[BusProblem, ...]:
        """All present problems, in a fixed order."""
        now_s, standing, found = self._clock(), self._standing(), list[BusProblem]()
        if self._vitals.hindrance:
            found.append(BusProblem(ProblemCode.NOT_LEADING, "", f"not leading: {self._vitals.hindrance}"))
        found += [
            BusProblem(ProblemCode.SECOND_AGENT, node, f"{node}: two agents report for this node; stop one of them")
            for node, reports in sorted(self._reports.items())
            if now_s - reports.doubled_s <= QUIET_S
        ]
        found += [
            BusProblem(ProblemCode.FLOODING, name, f"{name}: floods the bus; most of its messages are left out")
            for name in standing.flooding
        ]
        for site, watts in sorted(standing.leader_budgets_watts.items()):
            if (own := self._budgets_watts.get(site, watts)) != watts:
                text = (
                    f"site {site}: {watts:,.0f} W in the settings of the leader {standing.leader}, {own:,.0f} W in ours"
                )
                found.append(BusProblem(ProblemCode.OTHER_BUDGET, site, text))
        found += [
            BusProblem(code, who, text)
            for (code, who), (at_s, text) in sorted(self._noted.items())
            if now_s - at_s <= NAMED_S
        ]
        since_s = self._vitals.led_since_s if self._expects_nodes else None
        if since_s is not None and now_s - max(since_s, self._received_s) > QUIET_S:
            text = f"leading, and no node has reported for {now_s - max(since_s, self._received_s):.0f} s"
            found.append(BusProblem(ProblemCode.NO_NODE, "", text))
        return tuple(found)

    async def run(self) -> None:
        """Log each problem when it begins and when it is over, until cancelled."""
        while True:
            self.log_changes()
            await asyncio.sleep(LOG_EVERY_S)

    def log_changes(self) -> None:
        """Log problems that began or ended since the last call."""
        now = {(one.code, one.who): one.text for one in self.problems()}
        for key, text in now.items():
            # The link itself logs why it cannot lead.
            if key not in self._logged and key[0] is not ProblemCode.NOT_LEADING:
                log.warning("problem: %s", text, extra={"problem": key[0].value, "who": key[1]})
        for key, text in self._logged.items():
            if key not in now:
                log.info("no longer a problem: %s", text, extra={"problem": key[0].value, "who": key[1]})
        self._logged = now
