"""What answers prove about the bus itself: that its decisions are older than what agents have carried out.

Pure. The planner counts a node's ids anew where its agent would refuse them, and doubts what it inherited.
"""

from __future__ import annotations

from planner.domain.observation import PowerAckSeen

FOREIGN_EPOCH = -1
"""The epoch under which an answer to another incarnation is read: its ids are another counting's."""


def knows_more(ack: PowerAckSeen, epoch: int, next_id: int) -> bool:
    """Whether an answer speaks of a later term, or of a later decision, than the bus had for its leader.

    Every decision that an agent can have seen was stored before: a bus that has no trace of one was put back from a
    copy, or lost it.
    """
    if ack.epoch == FOREIGN_EPOCH:
        return False
    return ack.epoch > epoch or ack.decision_id >= next_id


def refuses(ack: PowerAckSeen, epoch: int, incarnation: str) -> bool:
    """Whether the agent would refuse all that a leader of ``epoch`` decides under ``incarnation``.

    It knows a later term, or it refused while it follows another incarnation: an old decision that reached a fresh
    process made it take ours for the earlier one. A refusal that is late costs no more than one more incarnation.
    """
    if ack.incarnation == incarnation:
        return ack.epoch > epoch
    return ack.status == "rejected" and ack.incarnation != ""
