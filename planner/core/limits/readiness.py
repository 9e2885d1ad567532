"""The decision flow: what a newer decision waits for (``wait_for``).

By default it waits for nothing: it is published while an earlier one is still being carried out and takes its place;
the earlier one is acknowledged as ``superseded``. Waiting for completion includes the last draining replica, and an
answer of thousands of tokens drains for minutes; waiting for readiness does not.
"""

from __future__ import annotations

from planner.core.limits.limiter import CountsByPool, LimitContext
from planner.core.state import Flow
from planner.domain.config import DeploymentConfig, WaitFor
from planner.domain.plan import Limited
from planner.domain.reasons import ReasonCode


def wait_for_last_decision(context: LimitContext, counts: CountsByPool) -> CountsByPool:
    """Limiter: the counts in force while the last decision is carried out and has not timed out."""
    wait = blocked(context.state.flow, context.config, context.clock.now_s)
    if wait is None:
        return counts
    current = context.current
    return counts.then(
        {
            name: Limited(current[name], ReasonCode.SCALING_IN_PROGRESS, wait.sentence)
            for name, count in counts.values.items()
            if count != current[name]
        }
    )


def blocked(flow: Flow, config: DeploymentConfig, now_s: float) -> Limited | None:
    """Why no newer decision may be published now; None where one may."""
    if done(flow, config) or timed_out(flow, config, now_s):
        return None
    waited = now_s - flow.decided_at_s
    missing = "carried out" if config.waits_for is WaitFor.COMPLETE else "serving"
    sentence = f"decision {flow.decision_id} is not {missing} yet ({waited:.0f} s of {config.scaling_timeout_s:.0f} s)"
    return Limited(flow.decision_id, ReasonCode.SCALING_IN_PROGRESS, sentence)


def done(flow: Flow, config: DeploymentConfig) -> bool:
    """Whether the last decision is carried out as far as ``wait_for`` requires of a newer one."""
    if config.waits_for is WaitFor.NOTHING or flow.ready:
        return True
    return config.waits_for is WaitFor.READY and flow.serving_decision_id >= flow.decision_id


def timed_out(flow: Flow, config: DeploymentConfig, now_s: float) -> bool:
    """Whether the last decision has timed out; the planner then continues, with a note."""
    waited_s = now_s - flow.decided_at_s
    return not done(flow, config) and waited_s >= config.scaling_timeout_s


def timeout_note(flow: Flow, config: DeploymentConfig, now_s: float) -> tuple[Limited, ...]:
    """A note where the last decision has timed out; else none."""
    if not timed_out(flow, config, now_s):
        return ()
    waited = now_s - flow.decided_at_s
    sentence = f"decision {flow.decision_id} was not carried out within {waited:.0f} s: going on"
    return (Limited(flow.decision_id, ReasonCode.SCALING_TIMEOUT, sentence),)
