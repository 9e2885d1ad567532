"""Which senders publish more than any well-behaved one does. Pure: time is an argument.

A reader that follows many senders must not spend its time on one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

PER_S = 20.0
"""An agent sends telemetry about once a second, and at most a few messages a second while caps move."""
BURST = 200.0
NAMED_FOR_S = 60.0
"""How long after its last message too many a sender counts as flooding."""
MOST_SENDERS = 20_000


@dataclass(slots=True)
class _Sender:
    allowance: float
    at_s: float
    over_s: float = float("-inf")


class FloodGate:
    """Admits ``per_s`` messages a second of each sender, after ``burst`` at once, and names those who send more."""

    def __init__(self, per_s: float = PER_S, burst: float = BURST) -> None:
        self._per_s, self._burst = per_s, burst
        self._senders: dict[str, _Sender] = {}

    def admits(self, sender: str, now_s: float) -> bool:
        """Count one message; returns whether the sender is within its rate."""
        known = self._senders.get(sender)
        if known is None:
            if len(self._senders) >= MOST_SENDERS:
                self._forget(now_s)
            known = self._senders[sender] = _Sender(self._burst, now_s)
        known.allowance = min(self._burst, known.allowance + self._per_s * max(0.0, now_s - known.at_s))
        known.at_s = now_s
        if known.allowance < 1.0:
            known.over_s = now_s
            return False
        known.allowance -= 1.0
        return True

    def over(self, sender: str, now_s: float) -> bool:
        """Whether the sender flooded a moment ago."""
        known = self._senders.get(sender)
        return known is not None and now_s - known.over_s <= NAMED_FOR_S

    def flooding(self, now_s: float) -> tuple[str, ...]:
        """The senders that flooded a moment ago, sorted."""
        return tuple(sorted(one for one in self._senders if self.over(one, now_s)))

    def _forget(self, now_s: float) -> None:
        """Drop the senders whose allowance is whole again: forgetting them changes nothing."""
        refill_s = max(NAMED_FOR_S, self._burst / self._per_s)
        self._senders = {name: one for name, one in self._senders.items() if now_s - one.at_s < refill_s}
