"""Which decisions have already been carried out, according to the stored acknowledgements. Pure."""

from __future__ import annotations

from enum import Enum

from bus_schemas.v1 import AckStatus, Message, PowerAck, PowerDecision, ScalingAck, ScalingDecision

FINAL = frozenset({AckStatus.APPLIED, AckStatus.REJECTED, AckStatus.SUPERSEDED})


class Completion(Enum):
    """What to do with a delivered decision."""

    FRESH = "carry it out"
    DONE = "its result is stored: acknowledge it again"
    OLD = "a newer one was carried out: acknowledge and forget it"


class CompletedDecisions:
    """The newest decision of an incarnation that was carried out. Messages other than decisions are FRESH."""

    def __init__(self) -> None:
        self._incarnation: str | None = None
        self._complete = -1
        self._settled = -1

    def learn(self, result: Message | None) -> None:
        """Take in a stored acknowledgement; other messages and None change nothing."""
        if not isinstance(result, (ScalingAck, PowerAck)) or not result.incarnation:
            return
        complete = result.scaled_decision_id if isinstance(result, ScalingAck) else result.applied_decision_id
        if result.incarnation == self._incarnation:
            complete = max(complete, self._complete)
        self._incarnation, self._complete = result.incarnation, complete
        # Only this one id: a rejected decision must not block valid decisions with lower ids.
        self._settled = result.decision_id if _settled(result) else -1

    def verdict(self, message: Message) -> Completion:
        """What to do with ``message``. A new incarnation numbers its decisions anew, so all of them are fresh."""
        if not isinstance(message, (ScalingDecision, PowerDecision)) or message.incarnation != self._incarnation:
            return Completion.FRESH
        if message.decision_id in (self._complete, self._settled):
            return Completion.DONE
        return Completion.OLD if message.decision_id < self._complete else Completion.FRESH


def _settled(result: ScalingAck | PowerAck) -> bool:
    return result.status in FINAL or (result.status is AckStatus.FAILED and not result.retryable)
