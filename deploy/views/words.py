"""One plain sentence for each decision and acknowledgement, the same in every view."""

from __future__ import annotations

from bus_schemas import v1
from bus_schemas.visible_text import visible_parts


def clock(message: v1.Message) -> str:
    """The time of day of a message, in UTC."""
    return message.time.strftime("%H:%M:%S")


def amount(value: float) -> str:
    """A figure for people: four digits, and no exponent for a large one."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def promised(slo: v1.SloRecord) -> str:
    """A promised share of good requests, with what is left of its error budget and how fast it is spent."""
    burn = "" if slo.burn_rate is None else f"; burn rate {slo.burn_rate:.2f} over the last hour"
    return (
        f"promised {amount(100.0 * slo.slo_share)} % good, sized for the {slo.quantile:.3f} quantile;"
        f" error budget left: this day {_left(slo.day)}, this month {_left(slo.month)}{burn}"
    )


def _left(budget: v1.ErrorBudgetRecord) -> str:
    since = f"{budget.since:%d %b %H:%M}"
    return f"{100.0 * budget.left:.0f} % ({budget.late:.0f} of {budget.requests:.0f} late since {since})"


def sentence(message: v1.Message) -> str:
    """The content of the message in one line, without its time."""
    message = visible_parts(message)
    match message:
        case v1.ScalingDecision():
            return _scaling(message)
        case v1.PowerDecision():
            return _power(message)
        case v1.ScalingAck():
            done = f" ({message.done}/{message.total})" if message.total else ""
            running = _counts(message.replicas)
            stage = "" if message.phase is None or message.phase.value == message.status.value else f", {message.phase}"
            return (
                f"{message.deployment} scaling #{message.decision_id} {message.status}{stage}{done}"
                f"{': ' + running if running else ''}{_because(message.reason)}"
            )
        case v1.PowerAck():
            total = sum(gpu.enforced_watts or 0.0 for gpu in message.gpus)
            sick = [gpu.gpu for gpu in message.gpus if gpu.health != v1.GpuHealth.OK]
            return (
                f"{message.node} power #{message.decision_id} {message.status}: {total:.0f} W in force"
                f"{' (' + str(len(sick)) + ' GPUs not ok)' if sick else ''}{_because(message.reason)}"
            )
    return message.type


def _scaling(decision: v1.ScalingDecision) -> str:
    counts = _counts({name: target.replicas for name, target in decision.pools.items()} | decision.other_pools)
    if not counts:
        counts = f"prefill={decision.num_prefill_workers} decode={decision.num_decode_workers}"
    return f"{decision.deployment} scaling #{decision.decision_id}: {counts}{_reasons(decision.reasons)}"


def _power(decision: v1.PowerDecision) -> str:
    watts = sum(cap.cap_watts for cap in decision.caps)
    return (
        f"{decision.node} power #{decision.decision_id}: {len(decision.caps)} caps, {watts:.0f} W"
        f"{_reasons(decision.reasons)}"
    )


def _counts(replicas: dict[str, int]) -> str:
    return " ".join(f"{name}={count}" for name, count in replicas.items())


def _because(reason: str) -> str:
    return f"; {reason}" if reason else ""


def _reasons(reasons: tuple[v1.Reason, ...]) -> str:
    texts = [reason.text or reason.code for reason in reasons]
    return f"; {texts[-1]}" if texts else ""
