"""The scopes by name. One node carries the proof of messages, two carry the arithmetic; small ones run in the gate."""

from __future__ import annotations

from deploy.fault_simulation.exhaustive.scope import Scope

ONE = ((400,), (700,), (200,))
TWO = ((500, 400), (400, 500), (200, 700))


def _one(name: str, why: str, rare: dict[str, int], **more: object) -> Scope:
    return Scope(name, why, 700, ONE, rare, **more)  # type: ignore[arg-type]


def _two(name: str, why: str, rare: dict[str, int], **more: object) -> Scope:
    numbers: dict[str, object] = {"budget_watts": 900, "wants": TWO, "nodes": 2, "long": True, **more}
    return Scope(name, why, rare=rare, **numbers)  # type: ignore[arg-type]


_ALL = (
    _one("crash", "an agent crashes and starts again; decisions late, doubled, out of order",
         {"time": 2, "wants": 2, "restart": 1}),
    _one("fail-over", "another planner leads, twice", {"time": 2, "wants": 1, "fail-over": 2}),
    _one("backlog", "five decisions may still arrive", {"time": 2, "wants": 4}, decisions=5),
    _one("fenced", "a leader that was replaced goes on", {"time": 1, "wants": 2, "fail-over": 1}, zombie=True),
    _one("lease-edge", "steps of time around the end of a lease", {"time": 3, "wants": 1, "restart": 1},
         steps_s=(1.0, 4.5, 9.0, 10.0)),
    _one("low-default", "the default is below the most that hardware takes", {"time": 1, "wants": 2, "restart": 1},
         default_watts=500),
    _one("annotation", "an annotation bounds the cap and is taken away", {"time": 1, "wants": 1, "bound": 2},
         bounds_watts=(300, None)),
    _one("lost-telemetry", "a fail-over without any telemetry, and a restart",
         {"time": 2, "wants": 1, "fail-over": 1, "restart": 1}, telemetry_lost=True),
    _one("late-reports", "reports heard late and again", {"time": 2, "wants": 1}, late_reports=True, reports=2),
    _one("week", "a week of silence, and another planner leads", {"time": 1, "wants": 1, "fail-over": 1, "week": 1},
         expected=False),
    Scope("two-gpus", "an agent dies between two writes", 1000, ((500, 400), (300, 700)),
          {"time": 1, "wants": 1, "restart": 1}, gpus=2, partial=True),
    Scope("three-gpus", "an agent dies between three writes", 1500, ((500, 400, 300), (300, 500, 700)),
          {"time": 1, "wants": 1, "restart": 1}, gpus=3, partial=True, decisions=1),
    _one("reset", "a driver reset under a live agent", {"time": 2, "wants": 1, "reset": 1}, sharp=False),
    _one("reboot", "a node reboots", {"time": 1, "wants": 1, "reboot": 1}, sharp=False),
    _two("steady", "watts move between two nodes", {"time": 2, "wants": 2}),
    _two("two-fail-over", "watts move between two nodes, and another planner leads",
         {"time": 2, "wants": 1, "fail-over": 1}),
    _two("settling", "power follows a lower limit a second later", {"time": 1, "wants": 1},
         steps_s=(1.0, 4.0), draw_lag_s=1.0),
    _two("cut", "a cut, and its release", {"time": 2, "wants": 1, "order": 2}, budget_watts=1200,
         wants=((300, 300), (600, 600), (700, 400)), orders_watts=(900, None), steps_s=(4.0, 11.0)),
    _two("climb", "a cut while an agent's lease has lapsed", {"time": 1, "order": 1}, budget_watts=1200,
         wants=((600, 600),), orders_watts=(900,), steps_s=(11.0,), long=False),
    _two("tiny-budget", "a budget below the smallest caps", {"time": 2, "wants": 1, "order": 2},
         orders_watts=(350, None)),
    _two("late-join", "a node joins that was announced", {"time": 2, "wants": 1, "join": 1}, late=1,
         symmetric=False, sharp=False),
    _two("two-reset", "a driver reset, and a neighbour that wants more", {"time": 2, "wants": 1, "reset": 1},
         sharp=False),
    _two("removal", "a node is switched off, removed by order, and comes back",
         {"time": 2, "wants": 1, "switch-off": 1, "remove": 1, "join": 1}, sharp=False),
    _two("two-reboot", "a node reboots beside another", {"time": 2, "wants": 1, "reboot": 1}, sharp=False),
    _two("silence", "a week in which one node is silent, and another planner leads",
         {"time": 1, "wants": 1, "fail-over": 1, "week": 1}, budget_watts=700, wants=((200, 500), (200, 700)),
         expected=False, steps_s=(10.0,)),
    _two("restore", "the bus is put back from an old copy while an agent is dead",
         {"time": 1, "wants": 2, "copy": 1, "put-back": 1}, wants=((500, 400), (400, 500)), steps_s=(10.0,)),
)  # fmt: skip
SCOPES: dict[str, Scope] = {scope.name: scope for scope in _ALL}
