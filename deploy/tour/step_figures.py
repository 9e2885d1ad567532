"""What happened in one step of a tour, from messages of the bus only. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bus_schemas import v1
from deploy.report.watts import SiteWatts
from deploy.views.words import amount, sentence

MOST_DECISIONS = 3
PHASES = {"prompts": "prompts in time", "answers": "answers in time", "requests": "requests in time"}


@dataclass(frozen=True, slots=True)
class StepFigures:
    """``in_time``: shares by phase, weighted by requests, 0..1."""

    decisions: tuple[tuple[v1.ScalingDecision, v1.ScalingAck | None], ...]
    requests: float
    in_time: dict[str, float] = field(default_factory=dict)
    site: SiteWatts | None = None
    drawn_watts: float = 0.0
    """By the newest telemetry."""

    def lines(self) -> list[str]:
        """For people, a line for each thing."""
        found = [_decided(decision, ack) for decision, ack in self.decisions[-MOST_DECISIONS:]]
        if (left := len(self.decisions) - len(found)) > 0:
            found.insert(0, f"{left} decisions about replicas before these:")
        if not self.decisions:
            found.append("no decision about replicas: what runs is what the load needs")
        found.append(self._watts())
        if self.in_time:
            shares = ", ".join(f"{PHASES[phase]} {100 * share:.1f} %" for phase, share in self.in_time.items())
            found.append(f"share good: {shares}, of {amount(self.requests)} requests")
        else:
            found.append("share good: nothing measured in this step")
        return found

    def _watts(self) -> str:
        site = self.site
        if site is None or site.most_enforced is None:
            return "caps: no node answered anything in this step"
        budget = f"{site.most_budget or 0.0:,.0f} W"
        if site.least_budget != site.most_budget:
            budget = f"{site.least_budget or 0.0:,.0f} W to {budget}"
        kept = "never above it" if not site.excesses else f"above it {_above(site)}"
        return (
            f"caps at most {site.most_enforced:,.0f} W, budget {budget}: {kept},"
            f" in {site.acknowledgements} acknowledgements; {self.drawn_watts:,.0f} W drawn now"
        )


def _above(site: SiteWatts) -> str:
    """What a cut explains is no violation: limits go down one node after the other."""
    if site.violations:
        return f"{len(site.violations)} times, which no cut explains"
    longest_s = max(((one.ended or one.began) - one.began).total_seconds() for one in site.excesses)
    return f"only for the {longest_s:.2f} s that the cut took"


def _decided(decision: v1.ScalingDecision, ack: v1.ScalingAck | None) -> str:
    return f"{sentence(decision)} [{ack.status if ack is not None else 'no answer yet'}]"


def in_time(records: Iterable[v1.PlanRecord]) -> tuple[float, dict[str, float]]:
    """Requests of the records that measured a share, and the shares by phase, weighted by requests."""
    weights: defaultdict[str, float] = defaultdict(float)
    good: defaultdict[str, float] = defaultdict(float)
    for record in records:
        requests = record.observed.get("requests", 0.0)
        for phase, share in record.good.items():
            if share.measured is not None and requests > 0:
                weights[phase] += requests
                good[phase] += requests * share.measured
    return max(weights.values(), default=0.0), {phase: good[phase] / weights[phase] for phase in sorted(weights)}


def most_gpus(decision: v1.ScalingDecision) -> int:
    """GPUs that the decision's workers hold."""
    return sum(target.replicas * target.gpus_per_replica for target in decision.pools.values())


def observed_mean(records: Sequence[v1.PlanRecord], reading: str) -> float | None:
    """A reading's mean over the records that have it, weighted by requests; None without any."""
    seen = [
        (one.observed[reading], one.observed.get("requests", 0.0))
        for one in records
        if reading in one.observed and one.observed.get("requests", 0.0) > 0
    ]
    weight = sum(requests for _, requests in seen)
    return sum(value * requests for value, requests in seen) / weight if weight else None
