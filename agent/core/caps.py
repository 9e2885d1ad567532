"""Desired and observed caps to writes: what one node's agent does with its GPUs. Pure.

Owns fencing (older epochs and ids are refused), the dead-man (a cap that is not renewed steps down to its fallback),
and drift. Never writes a limit above what the newest accepted decision allows, never raises for a decision that was
made for an earlier process or whose lease has ended, and never returns to a default. All powers in milliwatts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from agent.core.cap_types import (
    Acceptance,
    AgentState,
    CapDecision,
    CapReport,
    GpuTarget,
    GpuTargetState,
    Health,
    InForce,
    LimitReading,
    SetLimit,
    WriteResult,
    health_of,
)
from agent.core.deadman import lease_of

__all__ = [
    "Acceptance",
    "AgentState",
    "CapDecision",
    "CapReport",
    "GpuTarget",
    "Health",
    "InForce",
    "LimitReading",
    "SetLimit",
    "WriteResult",
    "actions",
    "bounded",
    "deadline_s",
    "health_of",
    "initial",
    "lapse",
    "left_alone",
    "observed",
    "receive",
    "report",
]

FIRST_RETRY_S = 0.5
LAST_RETRY_S = 15.0


def initial(boot: str, now_s: float, *, grace_s: float = 30.0, hold_without_decision: bool = False) -> AgentState:
    """The state of a process that has just started: no decision yet; it adopts the limits that it reads."""
    return AgentState(boot, now_s, grace_s, hold_without_decision)


def receive(state: AgentState, decision: CapDecision, now_s: float) -> tuple[AgentState, Acceptance]:
    """Accept or refuse a decision. A new incarnation restarts ids and epochs; an earlier one stays refused."""
    state = lapse(state, now_s)
    verdict = judge(state, decision)
    if verdict is not Acceptance.ACCEPTED:
        return state, verdict
    past = state.past
    if state.incarnation and decision.incarnation != state.incarnation:
        past = past | {state.incarnation}
    lease = lease_of(state.boot, decision.heard_boot, decision.heard_clock_s, decision.valid_for_s, now_s)
    lines = dict(state.lines)
    if lease is not None and lease.ours and lease.ends_s > now_s:
        ends_s: float | None = lease.ends_s
        for target in decision.caps:
            line = lines.get(target.gpu)
            lines[target.gpu] = (
                replace(_only_lowered(line, target, lapsed=False), may_raise=False)
                if decision.only_lowers
                else _granted(line, target)
            )
        if not decision.only_lowers:
            lines = {gpu: _released(line) if gpu in decision.released else line for gpu, line in lines.items()}
    else:
        ends_s = _adopted_end(state, decision, lease.ends_s if lease else None)
        for target in decision.caps:
            lines[target.gpu] = _only_lowered(lines.get(target.gpu), target, lapsed=ends_s is None)
    fresh = replace(
        state,
        epoch=decision.epoch,
        decision_id=decision.decision_id,
        incarnation=decision.incarnation,
        past=past,
        ends_s=ends_s,
        only_lowers=decision.only_lowers,
        lines=lines,
    )
    return lapse(fresh, now_s), verdict


def judge(state: AgentState, decision: CapDecision) -> Acceptance:
    """Fencing: whether a decision is the newest one of the newest leader."""
    if state.incarnation and decision.incarnation != state.incarnation:
        return Acceptance.OLDER_EPOCH if decision.incarnation in state.past else Acceptance.ACCEPTED
    if decision.epoch < state.epoch:
        return Acceptance.OLDER_EPOCH
    if decision.decision_id == state.decision_id and decision.epoch == state.epoch:
        return Acceptance.REPEATED
    return Acceptance.ACCEPTED if decision.decision_id > state.decision_id else Acceptance.OLDER_ID


def _granted(line: GpuTargetState | None, target: GpuTarget) -> GpuTargetState:
    base = line or GpuTargetState(target.setpoint.cap_mw)
    return replace(
        base,
        returning=False,
        ceiling_mw=target.setpoint.cap_mw,
        may_raise=True,
        setpoint=target.setpoint,
        fallback_mw=target.fallback_mw,
    )


def _released(line: GpuTargetState) -> GpuTargetState:
    """The target of a GPU that is left to others: a limit that a decision had set returns to the default.

    A limit that no decision has set stays as it is, whoever set it.
    """
    return line if line.setpoint is None else replace(line, setpoint=None, fallback_mw=None, returning=True)


def _only_lowered(line: GpuTargetState | None, target: GpuTarget, *, lapsed: bool) -> GpuTargetState:
    """The target after a decision that is late or was made for another process: it may lower and never raises."""
    base = line or GpuTargetState(target.setpoint.cap_mw)
    cap_mw = target.setpoint.cap_mw
    ceiling = min(base.ceiling_mw, cap_mw, target.fallback_mw if lapsed else cap_mw)
    return replace(base, ceiling_mw=ceiling, setpoint=target.setpoint, fallback_mw=target.fallback_mw, returning=False)


def _adopted_end(state: AgentState, decision: CapDecision, ends_s: float | None) -> float | None:
    """When the caps in force lapse after a decision that is not a lease for this process: never later than before."""
    if state.decision_id >= 0:
        return state.ends_s
    limit_s = state.started_s + decision.valid_for_s
    return limit_s if ends_s is None else min(limit_s, ends_s)


def lapse(state: AgentState, now_s: float) -> AgentState:
    """The dead-man: past the lease every ceiling comes down to its fallback. Never up, never to a default."""
    if state.ends_s is None or now_s < state.ends_s:
        return state
    if state.decision_id < 0 and state.hold_without_decision:
        return state
    return replace(state, ends_s=None, lines={gpu: fallen(line) for gpu, line in state.lines.items()})


def fallen(line: GpuTargetState) -> GpuTargetState:
    """One GPU after its lease. 0 stands for the hardware's minimum: writes are clamped."""
    fallback = 0 if line.fallback_mw is None else line.fallback_mw
    return replace(line, ceiling_mw=min(line.ceiling_mw, fallback), may_raise=False, returning=False)


def bounded(state: AgentState, upper_bounds: Mapping[str, int]) -> AgentState:
    """Further upper bounds by GPU (an annotation's watts), above which no limit is written."""
    return state if upper_bounds == state.bounds else replace(state, bounds=dict(upper_bounds))


def left_alone(state: AgentState, gpus: Iterable[str]) -> AgentState:
    """GPUs that pods of no deployment hold now: only an annotation or a decision that names them is followed."""
    foreign = frozenset(gpus)
    return state if foreign == state.foreign else replace(state, foreign=foreign)


def _aim(state: AgentState, line: GpuTargetState, reading: LimitReading) -> int:
    """The limit to write, clamped to what the hardware takes."""
    if line.returning:
        return min(max(reading.default_mw, reading.min_mw), reading.max_mw)
    ceiling = min(line.ceiling_mw, state.bounds.get(reading.gpu, line.ceiling_mw))
    return min(max(ceiling, reading.min_mw), reading.max_mw)


def actions(state: AgentState, readings: Mapping[str, LimitReading], now_s: float) -> tuple[SetLimit, ...]:
    """Writes to make now, lowers first; none for a GPU whose limit is as it should be."""
    state = lapse(state, now_s)
    lowers: list[SetLimit] = []
    raises: list[SetLimit] = []
    for gpu, reading in readings.items():
        line = state.lines.get(gpu)
        if line is None or line.refused or reading.health is not Health.OK or reading.enforced_mw is None:
            continue
        if gpu in state.foreign and line.setpoint is None and not line.returning:
            if gpu not in state.bounds:
                continue
            line = replace(line, ceiling_mw=state.bounds[gpu])  # the pod's own annotation, and nothing else
        aim = _aim(state, line, reading)
        requested = reading.enforced_mw if reading.requested_mw is None else reading.requested_mw
        # A reset since the last write lost what that write achieved: the next one may succeed.
        if line.wrote_mw == aim and now_s < line.retry_s and reading.resets == line.resets:
            continue
        if max(requested, reading.enforced_mw) > aim:
            lowers.append(SetLimit(gpu, aim))
        elif (line.may_raise or line.returning) and requested < aim:
            raises.append(SetLimit(gpu, aim))
    return (*lowers, *raises)


def observed(
    state: AgentState, readings: Mapping[str, LimitReading], now_s: float, results: Iterable[WriteResult] = ()
) -> AgentState:
    """The state after readings that follow ``results``: adopts new GPUs, notes resets, backs off retries."""
    state = lapse(state, now_s)
    wrote = {result.gpu: result for result in results}
    lines = dict(state.lines)
    for gpu, reading in readings.items():
        line = lines.get(gpu)
        if line is None:
            if reading.enforced_mw is None:
                continue
            line = GpuTargetState(max(reading.enforced_mw, reading.requested_mw or 0), resets=reading.resets)
        lines[gpu] = _returned(_seen(state, line, reading, wrote.get(gpu), now_s), reading)
    ends_s = state.ends_s
    if ends_s is None and state.decision_id < 0 and not state.lines and lines:
        ends_s = state.started_s + state.grace_s
    fresh = replace(state, lines=lines, ends_s=ends_s)
    if fresh.decision_id >= 0 and report(fresh, readings).status == "applied":
        fresh = replace(fresh, applied_id=fresh.decision_id)
    return fresh


def _returned(line: GpuTargetState, reading: LimitReading) -> GpuTargetState:
    """The line of a released GPU once its limit is back: as of one that was found at the start."""
    requested = reading.enforced_mw if reading.requested_mw is None else reading.requested_mw
    if not line.returning or requested is None or requested < min(reading.default_mw, reading.max_mw):
        return line
    return replace(line, ceiling_mw=requested, may_raise=False, returning=False)


def _seen(
    state: AgentState, line: GpuTargetState, reading: LimitReading, result: WriteResult | None, now_s: float
) -> GpuTargetState:
    aim = _aim(state, line, reading)
    holds = reading.enforced_mw is not None and max(reading.enforced_mw, reading.requested_mw or 0) <= aim
    # A write since the reset was noted has restored what the hardware takes, even if its floor is above the aim.
    written = result is not None and result.error_kind is None and reading.resets == line.resets
    lost = (line.lost or reading.resets != line.resets) and not (holds or written)
    tries, retry_s, wrote, refused = line.tries, line.retry_s, line.wrote_mw, line.refused
    if result is not None:
        refused = health_of(result.error_kind) is Health.UNCAPPABLE
        again = result.mw == wrote and not (holds and result.error_kind is None)
        tries = tries + 1 if again else 1
        retry_s = now_s + min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(tries - 1, 10))
        wrote = result.mw
    elif reading.resets != line.resets or (holds and reading.requested_mw == aim):
        tries, retry_s = 0, float("-inf")
    fresh = (lost, reading.resets, tries, retry_s, wrote, refused)
    if fresh == (line.lost, line.resets, line.tries, line.retry_s, line.wrote_mw, line.refused):
        return line
    return replace(
        line, lost=lost, resets=reading.resets, tries=tries, retry_s=retry_s, wrote_mw=wrote, refused=refused
    )


def report(state: AgentState, readings: Mapping[str, LimitReading], now_s: float | None = None) -> CapReport:
    """What is in force, against the newest decision. A GPU without a reading is reported as unknown."""
    if now_s is not None:
        state = lapse(state, now_s)
    gpus, done, named = [], 0, 0
    for gpu in sorted({*state.lines, *readings}):
        line, reading = state.lines.get(gpu), readings.get(gpu)
        if reading is None:
            gpus.append(InForce(gpu, None, None, Health.UNKNOWN, reset=False))
        else:
            health = Health.UNCAPPABLE if line is not None and line.refused else reading.health
            lost = line.lost if line is not None else False
            gpus.append(InForce(gpu, reading.requested_mw, reading.enforced_mw, health, lost))
        if line is not None and line.setpoint is not None:
            named += 1
            done += _carried_out(state, line, reading)
    status = "applied" if done == named else "partial" if done else "failed"
    return CapReport(state.epoch, state.decision_id, state.applied_id, status, tuple(gpus))


def _carried_out(state: AgentState, line: GpuTargetState, reading: LimitReading | None) -> bool:
    """Success is a limit read back as asked for after clamping; another limiter may hold it lower still."""
    if reading is None or reading.health is not Health.OK or reading.enforced_mw is None or line.setpoint is None:
        return False
    asked = min(line.setpoint.cap_mw, state.bounds.get(reading.gpu, line.setpoint.cap_mw))
    asked = min(max(asked, reading.min_mw), reading.max_mw)
    requested = reading.enforced_mw if reading.requested_mw is None else reading.requested_mw
    reached = requested == asked or (state.only_lowers and requested < asked)
    return reached and reading.enforced_mw <= asked


def deadline_s(state: AgentState) -> float | None:
    """When the dead-man acts next, on the agent's clock in seconds; None: never without a new message."""
    if state.decision_id < 0 and state.hold_without_decision:
        return None
    return state.ends_s
