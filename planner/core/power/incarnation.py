"""What answers prove about the bus itself: that its decisions are older than what agents have carried out.

Pure. Where an agent would refuse its ids, the planner begins a new count of the node's ids and doubts what it
inherited.
"""

from __future__ import annotations

from planner.domain.observation import PowerAckSeen

FOREIGN_EPOCH = -1
"""The epoch under which an answer to another incarnation is read: its ids belong to another count."""


def knows_more(ack: PowerAckSeen, epoch: int, next_id: int) -> bool:
    """Whether an answer names a later term, or a later decision, than the bus had for its leader.

    Every decision that an agent can have seen was stored first: a bus without a trace of it was restored from a copy,
    or lost it.
    """
    if ack.epoch == FOREIGN_EPOCH:
        return False
    return ack.epoch > epoch or ack.decision_id >= next_id


def refuses(ack: PowerAckSeen, epoch: int, incarnation: str) -> bool:
    """Whether the agent would refuse everything that a leader of ``epoch`` decides under ``incarnation``.

    That is so if it knows a later term, or if it refused while following another incarnation: an old decision that
    reached a fresh process made it treat ours as the earlier one. A late refusal costs only one more incarnation.
    """
    if ack.incarnation == incarnation:
        return ack.epoch > epoch
    return ack.status == "rejected" and ack.incarnation != ""
