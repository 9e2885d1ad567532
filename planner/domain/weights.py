"""What the optimiser trades against what. One currency: watts, so that energy itself has weight 1.

Owns the meaning of the weights. Must never hold a limit: budgets and counts are constraints, not prices.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weights:
    """Each weight says how many watts of expected draw one would pay for one unit of the thing."""

    sla: float = 10_000.0
    """Watts worth paying to carry the load of ONE GPU (a deployment counts the GPUs it wants uncapped). At the default,
    one percent of the load is worth 100 W per GPU, above what a cap or a replica costs: targets come first."""
    energy: float = 1.0
    """Watts per watt of expected draw. 0: energy is free."""
    gpu: float = 100.0
    """Watts per GPU that serves: one GPU more must save that many watts. Left free, it can serve somebody else."""
    churn: float = 100.0
    """Watts per GPU whose replica starts or stops: a change must save more than that to be worth its start-up."""
    priority: float = 100.0
    """How many times the shortfall of one priority class outweighs that of the class below."""

    def __post_init__(self) -> None:
        if min(self.sla, self.energy, self.gpu, self.churn) < 0:
            raise ValueError("weights must not be negative")
        if self.priority < 1:
            raise ValueError("the priority weight must be at least 1: a higher class is never shed first")


DEFAULT = Weights()
