"""What each deployment did in a period: requests, shares within target, GPU-hours, energy, cost. Pure.

Every figure is a sum over plan records. A record speaks for the interval before it, at most until the record before;
what no record speaks for is a gap, and the figures leave it out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bus_schemas import v1

JOULES_PER_KWH = 3.6e6
SECONDS_PER_HOUR = 3600.0
FRONTEND = "frontend"
"""The role of pools without GPUs."""
Speaking = list[tuple[v1.PlanRecord, float]]
"""Records, oldest first, each with the seconds that it speaks for."""
LATE = 1.5
"""Records further apart than this many of their intervals have a gap between them."""


@dataclass(frozen=True, slots=True)
class Period:
    """From ``since`` to ``until``, by the server's clock."""

    since: datetime
    until: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.until - self.since).total_seconds()


@dataclass(frozen=True, slots=True)
class Gap:
    """A part of the period of which nothing is recorded."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Prices:
    """What a kWh and a GPU-hour cost, in any one currency; None: not counted."""

    kwh: float | None = None
    gpu_hour: float | None = None


@dataclass(slots=True)
class Usage:
    """One deployment's figures. ``covered_s``: seconds that records speak for. None: no record has the reading.

    Of a load that runs faster than the clock, GPU-hours, joules and counts are of the load's time; other seconds are
    those of the clock.
    """

    deployment: str
    site: str = ""
    service_class: str | None = None
    """Its newest class of service; None: none was set."""
    load_time_scale: float = 1.0
    """The newest record's seconds of load per second of the clock."""
    covered_s: float = 0.0
    requests: float | None = None
    output_tokens: float | None = None
    in_time: dict[str, float] = field(default_factory=dict)
    """By phase (prompts, answers, requests): the share within its target, weighted by requests, 0..1."""
    judged: dict[str, float] = field(default_factory=dict)
    """By phase: the requests of which that share is known."""
    ttft_missed_s: float = 0.0
    itl_missed_s: float = 0.0
    """Seconds in which the mean was above the target."""
    targets: dict[str, float] = field(default_factory=dict)
    gpu_hours: float | None = None
    joules: float | None = None
    """Of its GPUs, while their draw was known."""
    unmetered_gpu_s: float = 0.0
    """GPU-seconds without a known draw: their energy is not in ``joules``."""
    shed_requests: float = 0.0
    """Requests that a gateway was asked to shed or delay."""
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By pool: the fewest and the most replicas."""
    gaps: list[Gap] = field(default_factory=list)

    @property
    def good_share(self) -> tuple[float, float] | None:
        """The least and the largest share of requests with prompt AND answer in time that the phases' shares allow."""
        shares = list(self.in_time.values())
        if not shares:
            return None
        return max(0.0, sum(shares) - (len(shares) - 1)), min(shares)

    @property
    def joules_per_token(self) -> float | None:
        """Energy of the deployment's GPUs by output token."""
        return self.joules / self.output_tokens if self.joules is not None and self.output_tokens else None

    def cost(self, prices: Prices) -> float | None:
        """Energy and GPU-hours at their prices; None where no price is given or a figure is missing."""
        if (prices.kwh is None and prices.gpu_hour is None) or self.joules is None or self.gpu_hours is None:
            return None
        return self.joules / JOULES_PER_KWH * (prices.kwh or 0.0) + self.gpu_hours * (prices.gpu_hour or 0.0)


def usages(
    records: Iterable[v1.PlanRecord], gpus_per_replica: Mapping[tuple[str, str], int], period: Period
) -> list[Usage]:
    """Figures by deployment, sorted by name.

    ``gpus_per_replica``: by (deployment, pool), as decisions state it; see `replica_sizes`.
    """
    found = []
    for name, own in by_deployment(records):
        speaking, gaps = spoken_for(own, period)
        usage = measured(name, speaking, gpus_per_replica)
        usage.gaps = gaps
        found.append(usage)
    return found


def by_deployment(records: Iterable[v1.PlanRecord]) -> list[tuple[str, list[v1.PlanRecord]]]:
    """Deployments by name, each with its records, oldest first."""
    by_name: dict[str, list[v1.PlanRecord]] = {}
    for record in records:
        by_name.setdefault(record.deployment, []).append(record)
    return [(name, sorted(own, key=lambda one: one.time)) for name, own in sorted(by_name.items())]


def spoken_for(records: Sequence[v1.PlanRecord], period: Period) -> tuple[Speaking, list[Gap]]:
    """A deployment's records, oldest first, each with the seconds that it speaks for; and the gaps of the period.

    Seconds of the clock, also where the load runs faster.
    """
    speaking: Speaking = []
    gaps, end, interval_s = list[Gap](), period.since, 0.0
    for record in records:
        interval_s = record.observed.get("interval_s", 0.0) / load_time_scale(record)
        since_last_s = (record.time - end).total_seconds()
        if since_last_s > LATE * interval_s:
            gaps.append(Gap(end, record.time - timedelta(seconds=interval_s)))
        speaking.append((record, max(0.0, min(interval_s, since_last_s))))
        end = record.time
    if (period.until - end).total_seconds() > LATE * interval_s:
        gaps.append(Gap(end, period.until))
    return speaking, gaps


def load_time_scale(record: v1.PlanRecord) -> float:
    """Seconds of load per second of the clock."""
    return 1.0 if record.load_time_scale is None else record.load_time_scale


def replica_sizes(record: v1.PlanRecord, gpus_per_replica: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """GPUs of a replica by pool. A pool that no decision names has one GPU a replica, a frontend none."""
    return {
        name: 0 if pool.role == FRONTEND else gpus_per_replica.get((record.deployment, name), 1)
        for name, pool in record.pools.items()
    }


def measured(name: str, speaking: Speaking, gpus: Mapping[tuple[str, str], int]) -> Usage:
    """The sums over a deployment's records, at least one, each with the seconds that it speaks for."""
    newest, _ = speaking[-1]
    usage = Usage(name, newest.site, newest.service_class, targets=dict(newest.targets))
    usage.load_time_scale = load_time_scale(newest)
    weights: defaultdict[str, float] = defaultdict(float)
    good: defaultdict[str, float] = defaultdict(float)
    for record, spoken_s in speaking:
        if (interval_s := record.observed.get("interval_s", 0.0)) > 0:
            part = spoken_s * load_time_scale(record) / interval_s
            _add(usage, record, spoken_s, part, gpus)
            for phase, share in record.good.items():
                weight = record.observed.get("requests", 0.0) * part
                if share.measured is not None and weight > 0:
                    weights[phase] += weight
                    good[phase] += weight * share.measured
    usage.judged = dict(sorted(weights.items()))
    usage.in_time = {phase: good[phase] / weight for phase, weight in usage.judged.items()}
    return usage


def _add(
    usage: Usage, record: v1.PlanRecord, spoken_s: float, share: float, gpus: Mapping[tuple[str, str], int]
) -> None:
    """Add one record, of whose interval ``share`` counts."""
    seen, load_s = record.observed, spoken_s * load_time_scale(record)
    usage.covered_s += spoken_s
    if (requests := seen.get("requests")) is not None:
        usage.requests = (usage.requests or 0.0) + requests * share
        if (osl := seen.get("osl_tokens")) is not None:
            usage.output_tokens = (usage.output_tokens or 0.0) + requests * osl * share
    for reading, target, missed in (("ttft_ms", "ttft_ms", "ttft_missed_s"), ("itl_ms", "itl_ms", "itl_missed_s")):
        if target in record.targets and seen.get(reading, 0.0) > record.targets[target]:
            setattr(usage, missed, getattr(usage, missed) + spoken_s)
    if record.shed is not None and record.shed.shed_req_per_s:
        usage.shed_requests += record.shed.shed_req_per_s * load_s
    sizes = replica_sizes(record, gpus)
    for name, pool in record.pools.items():
        held = pool.current * sizes[name]
        usage.gpu_hours = (usage.gpu_hours or 0.0) + held * load_s / SECONDS_PER_HOUR
        least, most = usage.counts.get(name, (pool.current, pool.current))
        usage.counts[name] = (min(least, pool.current), max(most, pool.current))
        power = record.gpu_power.get(name)
        if power is not None and power.drawn_watts is not None:
            usage.joules = (usage.joules or 0.0) + held * power.drawn_watts * load_s
        else:
            usage.unmetered_gpu_s += held * load_s
