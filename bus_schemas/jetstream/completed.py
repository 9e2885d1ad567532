"""Which decisions were carried out already, by what is stored as their result. Pure."""

from __future__ import annotations

from enum import Enum

from bus_schemas.v1 import AckStatus, Message, PowerAck, PowerDecision, ScalingAck, ScalingDecision

FINAL = frozenset({AckStatus.APPLIED, AckStatus.REJECTED, AckStatus.SUPERSEDED})


class Completion(Enum):
    """What to do with a decision that was delivered."""

    FRESH = "carry it out"
    DONE = "its result is stored: acknowledge it again"
    OLD = "a newer one was carried out: acknowledge and forget it"


class CompletedDecisions:
    """The newest decision that has a result, in its incarnation. Knows of decisions only; anything else is FRESH."""

    def __init__(self) -> None:
        self._incarnation: str | None = None
        self._complete = -1
        self._settled = -1

    def learn(self, result: Message | None) -> None:
        """A stored result."""
        if not isinstance(result, (ScalingAck, PowerAck)) or not result.incarnation:
            return
        complete = result.scaled_decision_id if isinstance(result, ScalingAck) else result.applied_decision_id
        if result.incarnation == self._incarnation:
            complete = max(complete, self._complete)
        self._incarnation, self._complete = result.incarnation, complete
        # Only this very decision: an id that was rejected must not stand in the way of lower, valid ones.
        self._settled = result.decision_id if _settled(result) else -1

    def verdict(self, message: Message) -> Completion:
        """What a delivered message is. Another incarnation starts its ids again, so all of it is fresh."""
        if not isinstance(message, (ScalingDecision, PowerDecision)) or message.incarnation != self._incarnation:
            return Completion.FRESH
        if message.decision_id in (self._complete, self._settled):
            return Completion.DONE
        return Completion.OLD if message.decision_id < self._complete else Completion.FRESH


def _settled(result: ScalingAck | PowerAck) -> bool:
    return result.status in FINAL or (result.status is AckStatus.FAILED and not result.retryable)
