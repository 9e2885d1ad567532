"""How the optimiser weighs its goals, in one currency: watts, so that energy itself has weight 1.

Owns the meaning of the weights. Must never hold a limit: budgets and counts are constraints, not prices.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weights:
    """Each weight is the number of watts of expected draw that one unit of its quantity is worth."""

    sla: float = 10_000.0
    """Watts that carrying the load of ONE GPU is worth. Targets come first; predicted shares of good requests that
    differ by less than 20 W of it (relatively: 0.2 % at the default) are equal, and cost decides between them."""
    energy: float = 1.0
    """Watts per watt of expected draw. 0: energy is free."""
    gpu: float = 100.0
    """Watts per GPU that serves: one more GPU must save that many watts. Left free, it can serve another deployment."""
    churn: float = 100.0
    """Watts per GPU whose replica starts or stops: a change must save more than this to be worth its start-up."""
    priority: float = 100.0
    """Factor by which the shortfall of one priority class outweighs that of the class below."""

    def __post_init__(self) -> None:
        if min(self.sla, self.energy, self.gpu, self.churn) < 0:
            raise ValueError("weights must not be negative")
        if self.priority < 1:
            raise ValueError("the priority weight must be at least 1: a higher class is never shed first")


DEFAULT = Weights()
