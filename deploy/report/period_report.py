"""A whole report as one value, and as JSON. Pure; the other forms are made from the same value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from bus_schemas import v1
from deploy.report.class_usage import ClassUsage, class_usages
from deploy.report.decisions import Decided, decided
from deploy.report.journal import Entry, StreamRange, digest, last_of_each, ranges
from deploy.report.signature import Signature
from deploy.report.usage import Period, Prices, Usage, usages
from deploy.report.watts import SiteWatts, watts
from deploy.report.what_if import WhatIf, what_ifs

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
    classes: Sequence[ClassUsage] = ()
    """By class of service; empty where no class is set."""
    in_force: tuple[StreamRange, ...] = ()
    """The last message of each subject from before the period: what was in force when it began."""
    what_if: Sequence[WhatIf] | None = None
    """None: not asked for."""

    @property
    def digest(self) -> str:
        """SHA-256 over the messages that the report is made of."""
        return digest(self.evidence, self.in_force)


def report(
    entries: Sequence[Entry], period: Period, prices: Prices, made_at: datetime, *, what_if: bool = False
) -> PeriodReport:
    """The report of a period. ``entries`` may begin before it: what was in force when it began comes from those.

    ``what_if``: also what advisory planners would have done.
    """
    within = inside(entries, period)
    # However much earlier a source reaches: the same messages give the same figures.
    before = [
        entry
        for entry in last_of_each(entry for entry in entries if entry.stored_at < period.since)
        if isinstance(entry.message, v1.PowerDecision | v1.PowerAck | v1.ScalingDecision)
    ]
    records = [entry.message for entry in within if isinstance(entry.message, v1.PlanRecord)]
    gpus = gpus_per_replica([*before, *within])
    return PeriodReport(
        period=period,
        prices=prices,
        usages=usages(records, gpus, period),
        sites=watts([*before, *within], period),
        decided=decided(within, period),
        evidence=ranges(within),
        made_at=made_at,
        classes=class_usages(records, gpus, period),
        in_force=ranges(before),
        what_if=what_ifs(records, gpus, period) if what_if else None,
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
        "prices": asdict(made.prices),
        "deployments": [_usage(one, made) for one in made.usages],
        "classes": [_class(one, made.prices) for one in made.classes],
        "sites": [_plain(asdict(one)) | {"violations": len(one.violations)} for one in made.sites],
        "decisions": _plain(asdict(made.decided)),
        "what_if": None if made.what_if is None else [_what_if(one, made.prices) for one in made.what_if],
        "evidence": {
            "sha256": made.digest,
            "streams": [asdict(one) for one in made.evidence],
            "in_force": [asdict(one) for one in made.in_force],
            "signature": asdict(made.signature) if made.signature else None,
        },
    }


def _usage(one: Usage, made: PeriodReport) -> dict[str, Any]:
    covered_share = one.covered_s / made.period.seconds if made.period.seconds else 0.0
    return {**_plain(asdict(one)), "covered_share": covered_share, **_derived(one, made.prices)}


def _class(one: ClassUsage, prices: Prices) -> dict[str, Any]:
    own = {field.name: getattr(one, field.name) for field in fields(one) if field.name not in ("parts", "good_share")}
    return {**_plain(own), **_derived(one, prices)}


def _derived(one: Usage | ClassUsage, prices: Prices) -> dict[str, Any]:
    """The figures that follow from the others."""
    good = one.good_share
    return {
        "good_share_least": good[0] if good else None,
        "good_share_most": good[1] if good else None,
        "joules_per_token": one.joules_per_token,
        "cost": one.cost(prices),
    }


def _what_if(one: WhatIf, prices: Prices) -> dict[str, Any]:
    return {**_plain(asdict(one)), "saved_cost": one.saved_cost(prices)}


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
