"""What an advisory planner would have done in a period, and what that would have saved against what ran. Pure.

Each tick's plan begins from what ran at that tick, so a plan that was never carried out does not lead to the next one.
What would have been drawn is what the power model expects of the planned counts at the planned caps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bus_schemas import v1
from deploy.report.usage import (
    FRONTEND,
    JOULES_PER_KWH,
    SECONDS_PER_HOUR,
    Gap,
    Period,
    Prices,
    by_deployment,
    load_time_scale,
    replica_sizes,
    spoken_for,
)

ADVISORY = "advisory"
"""The code of the reason that ends every chain of a deployment that is only watched."""


@dataclass(slots=True)
class WhatIf:
    """One watched deployment. ``covered_s``: seconds that its records speak for; hours and joules are of those.

    Joules are of the seconds in which both the draw of what ran was measured and that of the plan is expected:
    ``metered_s``.
    """

    deployment: str
    covered_s: float = 0.0
    metered_s: float = 0.0
    ran_gpu_hours: float = 0.0
    planned_gpu_hours: float = 0.0
    metered_ran_gpu_hours: float = 0.0
    metered_planned_gpu_hours: float = 0.0
    ran_joules: float = 0.0
    planned_joules: float = 0.0
    other_s: float = 0.0
    """Seconds in which the plan had other counts than what ran."""
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By pool: the fewest and the most replicas that were planned."""
    assumed_one_gpu: tuple[str, ...] = ()
    """Pools that no decision names: one GPU a replica is assumed."""
    gaps: list[Gap] = field(default_factory=list)

    @property
    def saved_gpu_hours(self) -> float:
        """Negative: it would have taken more."""
        return self.ran_gpu_hours - self.planned_gpu_hours

    @property
    def saved_joules(self) -> float | None:
        """None where no second has both figures."""
        return self.ran_joules - self.planned_joules if self.metered_s > 0 else None

    def saved_cost(self, prices: Prices) -> float | None:
        """Of the metered seconds; None without a price, or without such a second."""
        if (prices.kwh is None and prices.gpu_hour is None) or self.saved_joules is None:
            return None
        hours = self.metered_ran_gpu_hours - self.metered_planned_gpu_hours
        return self.saved_joules / JOULES_PER_KWH * (prices.kwh or 0.0) + hours * (prices.gpu_hour or 0.0)


def what_ifs(
    records: Iterable[v1.PlanRecord], gpus_per_replica: Mapping[tuple[str, str], int], period: Period
) -> list[WhatIf]:
    """Figures of every deployment with a record that was only advice, sorted by name."""
    advice = by_deployment(record for record in records if _is_advice(record))
    return [_what_if(name, own, gpus_per_replica, period) for name, own in advice]


def _is_advice(record: v1.PlanRecord) -> bool:
    return any(reason.code == ADVISORY for pool in record.pools.values() for reason in pool.chain)


def _what_if(
    name: str, records: Sequence[v1.PlanRecord], gpus: Mapping[tuple[str, str], int], period: Period
) -> WhatIf:
    found, assumed = WhatIf(name), set()
    speaking, found.gaps = spoken_for(records, period)
    for record, spoken_s in speaking:
        _add(found, record, spoken_s, gpus)
        assumed |= {
            pool for pool, one in record.pools.items() if one.role != FRONTEND and (record.deployment, pool) not in gpus
        }
    found.assumed_one_gpu = tuple(sorted(assumed))
    return found


def _add(found: WhatIf, record: v1.PlanRecord, spoken_s: float, gpus: Mapping[tuple[str, str], int]) -> None:
    """Add one record, which speaks for so many seconds."""
    sizes = replica_sizes(record, gpus)
    for name, pool in record.pools.items():
        least, most = found.counts.get(name, (pool.granted, pool.granted))
        found.counts[name] = (min(least, pool.granted), max(most, pool.granted))
    ran = sum(pool.current * sizes[name] for name, pool in record.pools.items())
    planned = sum(pool.granted * sizes[name] for name, pool in record.pools.items())
    found.covered_s += spoken_s
    if any(pool.current != pool.granted for pool in record.pools.values()):
        found.other_s += spoken_s
    load_s = spoken_s * load_time_scale(record)
    hours = load_s / SECONDS_PER_HOUR
    found.ran_gpu_hours += ran * hours
    found.planned_gpu_hours += planned * hours
    expected, drawn = record.expected.get("watts"), _drawn_watts(record, sizes)
    if drawn is not None and expected is not None:
        found.metered_s += spoken_s
        found.metered_ran_gpu_hours += ran * hours
        found.metered_planned_gpu_hours += planned * hours
        found.ran_joules += drawn * load_s
        found.planned_joules += expected * load_s


def _drawn_watts(record: v1.PlanRecord, sizes: Mapping[str, int]) -> float | None:
    """What the deployment's GPUs drew; None where a pool's draw is not known."""
    total = 0.0
    for name, pool in record.pools.items():
        power = record.gpu_power.get(name)
        if not pool.current * sizes[name]:
            continue
        if power is None or power.drawn_watts is None:
            return None
        total += pool.current * sizes[name] * power.drawn_watts
    return total
