"""Explains one decision: observed, forecast, model, wanted, each limit, granted. From the plan record alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from bus_schemas import v1
from bus_schemas.visible_text import visible_parts
from deploy.views.freshness import age_s, words
from deploy.views.words import amount, promised
from deploy.views.would_change import would_change

SAME = 0.005
"""Draws within this share of the expected one count as expected."""


def explain(
    record: v1.PlanRecord, decision: v1.ScalingDecision | None, ack: v1.ScalingAck | None, now: datetime | None = None
) -> str:
    """The explanation of one tick as plain text, with its age at ``now``."""
    record, decision, ack = visible_parts(record), visible_parts(decision), visible_parts(ack)
    old = f", {words(age_s(record.time, now) or 0.0)} ago" if now is not None else ""
    lines = [f"{record.deployment}, tick of {record.time:%Y-%m-%d %H:%M:%S} UTC{old}"]
    lines += _decided(record, decision, ack)
    lines += _section("observed", _observed(record))
    lines += _section("forecast", _forecast(record))
    lines += _section("model", (f"{name} × {value:.3g}" for name, value in record.corrections.items()))
    for name, pool in record.pools.items():
        lines += _section(f"{name} ({pool.role})", pool_lines(pool, record.gpu_power.get(name)))
    lines += _section("what would change it", iter(would_change(record)))
    lines += _section("expected", (f"{name} = {amount(value)}" for name, value in record.expected.items()))
    lines += _section("good requests", _good(record))
    lines += _section("power", power_lines(record))
    lines += _section("notes", (f"{note.code}: {note.text}" for note in record.notes))
    return "\n".join(lines)


def _decided(record: v1.PlanRecord, decision: v1.ScalingDecision | None, ack: v1.ScalingAck | None) -> Iterator[str]:
    if decision is not None:
        replicas = {name: target.replicas for name, target in decision.pools.items()} | decision.other_pools
        counts = " ".join(f"{name}={count}" for name, count in replicas.items())
        yield f"decision #{decision.decision_id} of {decision.time:%H:%M:%S}: {counts}"
        for reason in dict.fromkeys(decision.reasons):
            yield f"    {reason.code}: {reason.text}"
        if decision.decision_id != record.decision_id:
            yield f"    (the record is of the tick under decision #{record.decision_id})"
    if ack is not None:
        state = f"{ack.status} ({ack.reason})" if ack.reason else str(ack.status)
        yield f"acknowledged: #{ack.decision_id} {state}; carried out up to #{ack.scaled_decision_id}"
    else:
        yield f"acknowledged: carried out up to #{record.scaled_decision_id}"


def _section(title: str, body: Iterator[str]) -> Iterator[str]:
    lines = [f"    {line}" for line in body]
    if lines:
        yield title
        yield from lines


def _observed(record: v1.PlanRecord) -> Iterator[str]:
    for name, value in record.observed.items():
        target = record.targets.get(name)
        yield f"{name} = {amount(value)}" + (f"   (target {amount(target)})" if target is not None else "")
    for name, reason in record.missing.items():
        yield f"{name}: missing ({reason})"


def _forecast(record: v1.PlanRecord) -> Iterator[str]:
    for name, forecast in record.forecasts.items():
        yield (
            f"{name} in {forecast.horizon_s:.0f} s: {amount(forecast.mean)}"
            f" (band {amount(forecast.lower)} to {amount(forecast.upper)}, {forecast.model})"
        )


def pool_lines(pool: v1.PoolRecord, power: v1.PoolPowerRecord | None = None) -> Iterator[str]:
    """One pool from running to granted, with the reason of each step."""
    yield f"running {pool.current}, wanted {pool.wanted}"
    for position, reason in enumerate(pool.chain):
        value = f" -> {pool.values[position]}" if position < len(pool.values) else ""
        yield f"{reason.code}{value}: {reason.text}"
    cap = f" at {pool.cap_watts:.0f} W a GPU" if pool.cap_watts is not None else ""
    busy = f", expected busy {pool.utilisation:.0%}" if pool.utilisation is not None else ""
    yield f"granted {pool.granted}{cap}{busy}"
    if power is not None:
        yield from _draws(power)


def _draws(power: v1.PoolPowerRecord) -> Iterator[str]:
    known = f"{power.samples} draws below the cap, {power.bounds} at it"
    if power.p_u_watts == power.assumed_p_u_watts:
        yield f"its work uses at most {power.p_u_watts:.0f} W a GPU (P_u), as assumed ({known})"
    else:
        yield (
            f"its work uses at most {power.p_u_watts:.0f} W a GPU (P_u), learned"
            f" (assumed: {power.assumed_p_u_watts:.0f} W) at {power.batch:.3g} sequences a replica ({known})"
        )
    if power.drawn_watts and power.expected_watts is not None:
        off = power.expected_watts / power.drawn_watts - 1.0
        verdict = f" ({abs(off):.0%} too {'much' if off > 0 else 'little'})" if abs(off) >= SAME else ""
        yield f"draws {power.drawn_watts:.0f} W a GPU, expected {power.expected_watts:.0f} W{verdict}"


def _good(record: v1.PlanRecord) -> Iterator[str]:
    for phase, share in record.good.items():
        values = (("predicted", share.predicted), ("measured", share.measured))
        known = ", ".join(f"{value:.1%} {kind}" for kind, value in values if value is not None)
        yield f"{phase} in time over the last interval: {known}"
    if record.slo is not None:
        yield promised(record.slo)
    if (shed := record.shed) is not None:
        rate = "" if shed.shed_req_per_s is None else f" ({shed.shed_req_per_s:.3g} requests/s)"
        yield f"{shed.late_share:.1%} will be late; a gateway should shed or delay {shed.shed_share:.1%}{rate}"
        yield f"priority {shed.priority}: load of lower priority goes first"
        for name, of_class in (shed.by_class or {}).items():
            yield f"class {name} on this site: {_of_class(of_class)}"


def _of_class(shed: v1.ClassShedRecord) -> str:
    if shed.req_per_s is None or shed.shed_share is None or shed.shed_req_per_s is None:
        return "how much to shed is not known, because not all rates are forecast"
    return f"shed or delay {shed.shed_share:.1%} ({shed.shed_req_per_s:.3g} of {shed.req_per_s:.3g} requests/s)"


def power_lines(record: v1.PlanRecord) -> Iterator[str]:
    """The watts of the record's site: budget, charged, caps in force, drawn."""
    figures = (
        ("budget", record.budget_watts),
        ("charged", record.charged_watts),
        ("caps in force", record.enforced_watts),
        ("drawn", record.draw_watts),
    )
    known = [f"{name} {value:.0f} W" for name, value in figures if value is not None]
    if known:
        yield ", ".join(known)
