"""The hash of Dynamo's proposed connector over Redis: what it holds, and how far a decision has come by it. Pure.

A planner writes ``prefill``, ``decode`` and ``updated_at``; an actuator writes what is active, whether that is stable,
and ``observed_at``. There is no id and no completion: a decision is carried out when the actuator has reported, since
the decision was written, that the wanted counts are active and stable. A report of before may look the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from agent.connectors.virtual import dynamo_keys
from agent.core.scaling.scaling_types import DecisionKey, PoolCount, ScalingPhase, ScalingProblem, ScalingProgress

ROLES = ("prefill", "decode")
OBSERVED_AT, UPDATED_AT = "observed_at", "updated_at"
DEFAULT_PREFIX = "dynamo:planner:target"
Counts = Mapping[str, int | None]
"""By role; None: not set."""


def target_key(prefix: str, namespace: str, model: str) -> str:
    """The key of a deployment's hash. The braces are part of it: a cluster keeps equal ones on one node."""
    return f"{prefix}:{{{namespace}:{model}}}"


def own_keys(target: str) -> tuple[str, str]:
    """Of the decision that was passed on last, and of the connector that serves ``target``; on the same node."""
    return f"wattscale:passed_on:{target}", f"wattscale:connector:{target}"


@dataclass(frozen=True, slots=True)
class RoleSeen:
    """What the actuator reported of one role."""

    active: int
    stable: bool


@dataclass(frozen=True, slots=True)
class PassedOnHash:
    """The decision that was passed on last, and the actuator's ``observed_at`` at that time; empty: none."""

    key: DecisionKey
    observed_at: str

    def fields(self) -> dict[str, str]:
        """As stored beside the hash; `passed_on_hash` reads it."""
        incarnation, number = self.key
        return {"incarnation": incarnation, "decision_id": str(number), OBSERVED_AT: self.observed_at}


def passed_on_hash(fields: Mapping[str, str]) -> PassedOnHash | None:
    """What `PassedOnHash.fields` gave; None where there is nothing, or something else."""
    number = dynamo_keys.number(fields.get("decision_id"))
    if number is None or "incarnation" not in fields:
        return None
    return PassedOnHash((fields["incarnation"], number), fields.get(OBSERVED_AT, ""))


def wanted_counts(fields: Mapping[str, str]) -> Counts:
    """The counts that a planner asks for; None also for what is not a number."""
    return {role: dynamo_keys.number(fields.get(role)) for role in ROLES}


def is_absent(fields: Mapping[str, str]) -> bool:
    """Whether no planner has written: all counts are missing."""
    return not any(role in fields for role in ROLES)


def progress(
    key: DecisionKey,
    pools: Mapping[str, tuple[str, int]],
    wanted: Counts,
    there: PassedOnHash,
    fields: Mapping[str, str],
    *,
    was_completed: bool,
) -> ScalingProgress:
    """How far the decision ``key`` has come. ``pools``: role in the hash and count of each, by name.

    ``was_completed``: whether the decision was carried out before, so that a count that differs now is a problem.
    """
    asked = wanted_counts(fields)
    if asked != wanted:
        reason = (
            f"another planner writes its hash in Redis ({_text(asked)} where this one has {_text(wanted)}): stop it"
        )
        return _open(key, {}, ScalingProblem(reason), was_completed=was_completed)
    reported_at = fields.get(OBSERVED_AT, "")
    if not reported_at or reported_at == there.observed_at:
        return _open(key, {}, was_completed=was_completed)
    roles = {role: _seen(fields, role) for role, count in wanted.items() if count is not None}
    seen = {role: one for role, one in roles.items() if one is not None}
    if unreadable := sorted(f"{role}_active" for role, one in roles.items() if one is None):
        no_count = ScalingProblem(f"the actuator writes no count to {', '.join(unreadable)}")
        return _open(key, {}, no_count, was_completed=was_completed)
    counted = _pool_counts(pools, seen)
    if all(one.stable and one.active == wanted[role] for role, one in seen.items()):
        every = {pool: PoolCount(count, count) for pool, (_, count) in pools.items()}
        return ScalingProgress(key, complete=True, pools={**every, **counted})
    short = [
        f"{one.active} of {wanted[role]} {role}" for role, one in sorted(seen.items()) if one.active != wanted[role]
    ]
    problem = ScalingProblem(f"workers that are active: {', '.join(short)}") if was_completed and short else None
    return _open(key, counted, problem, was_completed=was_completed)


def _open(
    key: DecisionKey,
    pools: Mapping[str, PoolCount],
    problem: ScalingProblem | None = None,
    *,
    was_completed: bool,
) -> ScalingProgress:
    # Phases only move forward, and a completion here has none.
    phase = None if was_completed else ScalingPhase.STARTING
    return ScalingProgress(key, complete=False, phase=phase, pools=pools, problem=problem)


def _seen(fields: Mapping[str, str], role: str) -> RoleSeen | None:
    """None where the count is not one. A field that is missing is 0, or not stable."""
    active = dynamo_keys.number(fields.get(f"{role}_active", "0"))
    if active is None or active < 0:
        return None
    return RoleSeen(active, fields.get(f"{role}_stable", "").lower() == "true")


def _pool_counts(pools: Mapping[str, tuple[str, int]], seen: Mapping[str, RoleSeen]) -> dict[str, PoolCount]:
    """Of the pools that have their role for themselves: the hash counts workers by role alone."""
    of_role = Counter(role for role, _ in pools.values())
    return {
        pool: PoolCount(seen[role].active, count)
        for pool, (role, count) in pools.items()
        if role in seen and of_role[role] == 1
    }


def _text(counts: Counts) -> str:
    return ", ".join(f"{role} {'not set' if count is None else count}" for role, count in sorted(counts.items()))
