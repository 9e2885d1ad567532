"""A graph's restart as commanded: what to write into its spec, and how far it has come. Pure.

Owns the rule that with a power budget one component starts at a time. Dynamo's operator does the restart; here it is
asked for and followed. Calling it again after any crash gives the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class RestartPhase(StrEnum):
    """How far a restart has come; the values of the wire."""

    REJECTED = "rejected"
    """It can never be done as commanded."""
    WAITING = "waiting"
    """Nothing is written yet: another restart or a rolling update goes on, or the graph is not known."""
    ASKED = "asked"
    """Written into the graph's spec; the graph's operator has not begun."""
    RESTARTING = "restarting"
    COMPLETED = "completed"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    """Another restart or a rolling update took its place."""

    @property
    def final(self) -> bool:
        """Whether nothing more is done about it."""
        return self not in (RestartPhase.WAITING, RestartPhase.ASKED, RestartPhase.RESTARTING)


@dataclass(frozen=True, slots=True)
class RestartCommand:
    """What was commanded. ``order``: all components, the first first; empty: as the graph's operator has them.

    ``known``: False where only its id is: it is followed, but not begun.
    """

    restart_id: str
    parallel: bool = False
    order: tuple[str, ...] = ()
    known: bool = True


@dataclass(frozen=True, slots=True)
class RestartReport:
    """How far an order has come. ``in_progress``: components that restart now."""

    restart_id: str
    phase: RestartPhase
    in_progress: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GraphRestart:
    """What a graph says. ``asked_id``: of its spec; ``status``: its ``status.restart``; ``rolling``: an update's phase.

    ``version``: a write carries it, and fails where it is no longer the newest.
    """

    version: str
    components: tuple[str, ...]
    asked_id: str = ""
    status: Mapping[str, Any] | None = None
    rolling: str = ""


ONE_AT_A_TIME = "one component at a time: the site has a power budget, and start-up peaks would add up"
TOOK_ITS_PLACE = "a later command took its place while no connector ran: send it again"
_OBSERVED = {
    "Pending": RestartPhase.ASKED,
    "Restarting": RestartPhase.RESTARTING,
    "Completed": RestartPhase.COMPLETED,
    "Failed": RestartPhase.FAILED,
    "Superseded": RestartPhase.SUPERSEDED,
}
_BUSY = ("Pending", "Restarting")
_UPDATING = ("Pending", "InProgress")


def next_restart(
    order: RestartCommand, graph: GraphRestart, last: RestartReport | None, *, budgeted: bool
) -> tuple[dict[str, Any] | None, RestartReport]:
    """What to write as ``spec.restart``, if anything, and what to report.

    ``last``: the newest report of any order. ``budgeted``: the deployment's site has a power budget.
    """
    one_at_a_time = ONE_AT_A_TIME if budgeted and order.parallel else ""
    status = graph.status or {}
    observed = str(status.get("observedID", "")) == order.restart_id
    if graph.asked_id == order.restart_id or observed:
        phase = _OBSERVED.get(str(status.get("phase", "")), RestartPhase.ASKED) if observed else RestartPhase.ASKED
        busy = tuple(str(one) for one in status.get("inProgress") or ()) if phase is RestartPhase.RESTARTING else ()
        return None, RestartReport(order.restart_id, phase, busy, one_at_a_time)
    if not order.known:
        return None, RestartReport(order.restart_id, RestartPhase.SUPERSEDED, (), TOOK_ITS_PLACE)
    if flaw := _flaw(order, graph):
        return None, RestartReport(order.restart_id, RestartPhase.REJECTED, (), flaw)
    if (
        last is not None
        and last.restart_id == order.restart_id
        and last.phase
        in (
            RestartPhase.ASKED,
            RestartPhase.RESTARTING,
        )
    ):
        reason = f"spec.restart.id is {graph.asked_id or 'unset'} now: another writer changed it"
        return None, RestartReport(order.restart_id, RestartPhase.SUPERSEDED, (), reason)
    if wait := _wait(graph, status):
        return None, RestartReport(order.restart_id, RestartPhase.WAITING, (), wait)
    parallel = order.parallel and not budgeted
    strategy: dict[str, Any] = {"type": "Parallel" if parallel else "Sequential", "order": list(order.order) or None}
    written = {"id": order.restart_id, "strategy": strategy}
    return written, RestartReport(order.restart_id, RestartPhase.ASKED, (), one_at_a_time)


def _flaw(order: RestartCommand, graph: GraphRestart) -> str:
    if order.order and order.parallel:
        return "an order is only for a sequential restart"
    if order.order and sorted(order.order) != sorted(graph.components):
        return f"the order must name every component once: {', '.join(graph.components)}"
    return ""


def _wait(graph: GraphRestart, status: Mapping[str, Any]) -> str:
    """What is in progress there: Dynamo's operator would take the new restart in its place, or drop it."""
    if status.get("phase") in _BUSY:
        return f"restart {status.get('observedID', '')} is {status['phase']}"
    if graph.rolling in _UPDATING:
        return f"a rolling update is {graph.rolling}"
    return ""


def graph_restart(item: Mapping[str, Any]) -> GraphRestart:
    """A graph of either version: components as a list, or ``services`` as a mapping."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    listed = [str(one.get("name", "")) for one in spec.get("components") or ()]
    return GraphRestart(
        version=str(item["metadata"].get("resourceVersion", "")),
        components=(*listed, *(str(name) for name in spec.get("services") or {})),
        asked_id=str((spec.get("restart") or {}).get("id", "")),
        status=status.get("restart"),
        rolling=str((status.get("rollingUpdate") or {}).get("phase", "")),
    )
