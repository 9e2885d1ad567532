"""The ids under which a bridge passes decisions on to a system that numbers them itself. Pure.

Ids of such a system must rise for as long as any of its clients remembers one, also where our incarnations begin again
at 0, and where the system or the bridge lost its memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from agent.core.scaling.scaling_types import DecisionKey, ReplicaDecision


@dataclass(frozen=True, slots=True)
class PassedOn:
    """The decision that was passed on last, and the id that it got there."""

    key: DecisionKey
    external_id: int

    def text(self) -> str:
        """As stored beside the decision; `passed_on` reads it."""
        return json.dumps({"incarnation": self.key[0], "decision_id": self.key[1], "external_id": self.external_id})


def passed_on(text: str | None) -> PassedOn | None:
    """What `PassedOn.text` wrote; None where there is nothing, or something else."""
    try:
        value: Any = json.loads(text) if text else None
        if not isinstance(value, dict):
            return None
        return PassedOn((str(value["incarnation"]), int(value["decision_id"])), int(value["external_id"]))
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def next_id(decision: ReplicaDecision, there: tuple[int, ...], known: int) -> int:
    """The id for a decision that is passed on now.

    ``there``: all ids that can still be read in the other system, of decisions and of completions. ``known``: the
    highest that the bus or this process knows; -1: none. The decision's own id where it is high enough, so that both
    systems show the same number for as long as neither loses anything.
    """
    return max(decision.decision_id, max(there, default=-1) + 1, known + 1)
