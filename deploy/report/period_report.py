"""A whole report as one value, and as JSON. Pure; the other forms are made from the same value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from bus_schemas import v1
from deploy.report.decisions import Decided, decided
from deploy.report.journal import Entry, StreamRange, digest, ranges
from deploy.report.signature import Signature
from deploy.report.usage import Period, Prices, Usage, usages
from deploy.report.watts import SiteWatts, watts

FORMAT = "wattscale.report.v1"


@dataclass(frozen=True, slots=True)
class PeriodReport:
    """Everything that a report shows. Times are the server's."""

    period: Period
    prices: Prices
    usages: Sequence[Usage]
    sites: Sequence[SiteWatts]
    decided: Decided
    evidence: tuple[StreamRange, ...]
    made_at: datetime
    signature: Signature | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over the messages that the report is made of."""
        return digest(self.evidence)


def report(entries: Sequence[Entry], period: Period, prices: Prices, made_at: datetime) -> PeriodReport:
    """The report of a period. ``entries`` may begin before it: what was in force when it began comes from those."""
    within = inside(entries, period)
    records = [entry.message for entry in within if isinstance(entry.message, v1.PlanRecord)]
    return PeriodReport(
        period=period,
        prices=prices,
        usages=usages(records, gpus_per_replica(entries), period),
        sites=watts(entries, period),
        decided=decided(entries, period),
        evidence=ranges(within),
        made_at=made_at,
    )


def inside(entries: Iterable[Entry], period: Period) -> list[Entry]:
    """The messages that were stored in the period: those that the evidence is about."""
    return [entry for entry in entries if period.since <= entry.stored_at <= period.until]


def gpus_per_replica(entries: Sequence[Entry]) -> Mapping[tuple[str, str], int]:
    """By (deployment, pool), from the newest decision that names the pool."""
    found = {}
    for entry in sorted(entries, key=lambda entry: entry.stored_at):
        if isinstance(decision := entry.message, v1.ScalingDecision):
            for pool, target in decision.pools.items():
                found[decision.deployment, pool] = target.gpus_per_replica
    return found


def as_json(made: PeriodReport) -> dict[str, Any]:
    """The report as plain data: what `--check` reads, with units in the names."""
    return {
        "format": FORMAT,
        "since": made.period.since.isoformat(),
        "until": made.period.until.isoformat(),
        "made_at": made.made_at.isoformat(),
        "deployments": [_usage(one, made) for one in made.usages],
        "sites": [_plain(asdict(one)) | {"violations": len(one.violations)} for one in made.sites],
        "decisions": _plain(asdict(made.decided)),
        "evidence": {
            "sha256": made.digest,
            "streams": [asdict(one) for one in made.evidence],
            "signature": asdict(made.signature) if made.signature else None,
        },
    }


def _usage(one: Usage, made: PeriodReport) -> dict[str, Any]:
    good = one.good_share
    derived = {
        "covered_share": one.covered_s / made.period.seconds if made.period.seconds else 0.0,
        "good_share_least": good[0] if good else None,
        "good_share_most": good[1] if good else None,
        "joules_per_token": one.joules_per_token,
        "cost": one.cost(made.prices),
    }
    return {**_plain(asdict(one)), **derived}


def _plain(value: Any) -> Any:
    """Times as ISO 8601, tuples as lists."""
    match value:
        case datetime():
            return value.isoformat()
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case _:
            return value
