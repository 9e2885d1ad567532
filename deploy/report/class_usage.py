"""What the deployments of each class of service did in a period together: the sums of their figures. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bus_schemas import v1
from deploy.report.usage import Period, Prices, Speaking, Usage, by_deployment, measured, spoken_for


@dataclass(slots=True)
class ClassUsage:
    """One class's figures. ``service_class`` None: all deployments without a class. ``covered_s``: deployment-seconds.

    A figure is None where no deployment has it.
    """

    service_class: str | None
    deployments: tuple[str, ...]
    covered_s: float
    requests: float | None
    output_tokens: float | None
    in_time: dict[str, float]
    """By phase (prompts, answers, requests): the share within its target, weighted by requests, 0..1."""
    judged: dict[str, float]
    """By phase: the requests of which that share is known."""
    good_share: tuple[float, float] | None
    """The least and the largest share of good requests, each deployment weighted by its judged requests."""
    ttft_missed_s: float
    itl_missed_s: float
    gpu_hours: float | None
    joules: float | None
    unmetered_gpu_s: float
    shed_requests: float
    parts: list[Usage] = field(default_factory=list)
    """What each deployment did while it was of this class."""

    @property
    def joules_per_token(self) -> float | None:
        """Energy of the class's GPUs by output token."""
        return self.joules / self.output_tokens if self.joules is not None and self.output_tokens else None

    def cost(self, prices: Prices) -> float | None:
        """The sum of its deployments' costs; None where that of one is not known."""
        return _complete([part.cost(prices) for part in self.parts])


def class_usages(
    records: Sequence[v1.PlanRecord], gpus_per_replica: Mapping[tuple[str, str], int], period: Period
) -> list[ClassUsage]:
    """Figures by class of service, by name; last those of deployments without one. Empty where no class is set.

    A record counts for the class that it names, so a deployment whose class was changed counts for both.
    """
    if all(record.service_class is None for record in records):
        return []
    parts: dict[str | None, list[Usage]] = {}
    for name, own in by_deployment(records):
        speaking, _ = spoken_for(own, period)
        by_class: dict[str | None, Speaking] = {}
        for record, spoken_s in speaking:
            by_class.setdefault(record.service_class, []).append((record, spoken_s))
        for service_class, of_class in by_class.items():
            parts.setdefault(service_class, []).append(measured(name, of_class, gpus_per_replica))
    return [_together(called, parts[called]) for called in sorted(parts, key=lambda each: (each is None, each or ""))]


def _together(service_class: str | None, parts: list[Usage]) -> ClassUsage:
    phases = sorted({phase for part in parts for phase in part.judged})
    judged = {phase: sum(part.judged.get(phase, 0.0) for part in parts) for phase in phases}
    good = {
        phase: sum(part.judged.get(phase, 0.0) * part.in_time.get(phase, 0.0) for part in parts) for phase in phases
    }
    return ClassUsage(
        service_class=service_class,
        deployments=tuple(part.deployment for part in parts),
        covered_s=sum(part.covered_s for part in parts),
        requests=_sum(parts, lambda part: part.requests),
        output_tokens=_sum(parts, lambda part: part.output_tokens),
        in_time={phase: good[phase] / judged[phase] for phase in phases},
        judged=judged,
        good_share=_good(parts),
        ttft_missed_s=sum(part.ttft_missed_s for part in parts),
        itl_missed_s=sum(part.itl_missed_s for part in parts),
        gpu_hours=_sum(parts, lambda part: part.gpu_hours),
        joules=_sum(parts, lambda part: part.joules),
        unmetered_gpu_s=sum(part.unmetered_gpu_s for part in parts),
        shed_requests=sum(part.shed_requests for part in parts),
        parts=parts,
    )


def _sum(parts: Sequence[Usage], figure: Callable[[Usage], float | None]) -> float | None:
    known = [value for part in parts if (value := figure(part)) is not None]
    return sum(known) if known else None


def _complete(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _good(parts: Sequence[Usage]) -> tuple[float, float] | None:
    weighed = [(good, max(part.judged.values())) for part in parts if (good := part.good_share) is not None]
    whole = sum(weight for _, weight in weighed)
    if whole <= 0.0:
        return None
    least, most = (sum(good[end] * weight for good, weight in weighed) / whole for end in (0, 1))
    return least, most
