"""The scopes by name. One node carries the proof of messages, two carry the arithmetic; small ones run in the gate."""

from __future__ import annotations

from deploy.fault_simulation.exhaustive.scope import SearchScope

ONE = ((400,), (700,), (200,))
UP = ((400,), (700,))
DOWN = ((400,), (200,))
TWO = ((500, 400), (400, 500))


def _one(name: str, why: str, rare: dict[str, int], **more: object) -> SearchScope:
    numbers: dict[str, object] = {"budget_watts": 700, "wants": UP, "steps_s": (9.0,), **more}
    return SearchScope(name, why, rare=rare, **numbers)  # type: ignore[arg-type]


def _two(name: str, why: str, rare: dict[str, int], **more: object) -> SearchScope:
    numbers: dict[str, object] = {
        "budget_watts": 900,
        "wants": TWO,
        "nodes": 2,
        "long": True,
        "judged_every": 1500,
        **more,
    }
    return SearchScope(name, why, rare=rare, **numbers)  # type: ignore[arg-type]


_GATE = (
    _one("crash", "an agent crashes and starts again", {"time": 1, "wants": 1, "restart": 1}, wants=DOWN),
    _one("fail-over", "another planner leads", {"time": 1, "wants": 1, "fail-over": 1}),
    _one("backlog", "four decisions may still arrive", {"wants": 3}, wants=ONE, decisions=4),
    _one("fail-over-backlog", "another planner leads, and five decisions may still arrive",
         {"wants": 2, "fail-over": 1}, decisions=5),
    _one("fenced", "a leader that was replaced goes on", {"wants": 1, "fail-over": 1}, zombie=True),
    _one("lease-edge", "steps of time around the end of a lease", {"time": 2}, wants=((400,),), steps_s=(4.5,)),
    _one("low-default", "the default is below the most that hardware takes", {"wants": 1, "restart": 1},
         default_watts=500),
    _one("annotation", "an annotation bounds the cap and is taken away", {"wants": 1, "bound": 2},
         bounds_watts=(300, None)),
    _one("lost-telemetry", "a fail-over without any telemetry", {"wants": 2, "fail-over": 1}, telemetry_lost=True),
    _one("late-reports", "reports that arrive late and again", {"time": 1, "wants": 1}, late_reports=True, reports=2),
    _one("week", "a week of silence, and another planner leads", {"wants": 1, "fail-over": 1, "week": 1},
         expected=False),
    _one("late-grant", "a grant of before a cut arrives long after it", {"time": 1, "wants": 1, "order": 1},
         orders_watts=(500,), steps_s=(11.0,), decisions=1),
    _one("reset", "a driver reset under a live agent", {"time": 1, "reset": 1}, sharp=False),
    _one("reboot", "a parked node reboots", {"time": 1, "reboot": 1}, wants=((200,),), sharp=False, judged_every=1),
    _one("put-back", "the bus is put back from a copy of when the node had more, and decisions of before still arrive",
         {"time": 1, "put-back": 1}, wants=((700,), (400,)), default_watts=500, steps_s=(4.0,), copied_first=True,
         strays=True, decisions=1, sharp=False, sharp_to_raise=True),
    _one("put-back-granted", "the same, from a copy of before a grant", {"time": 1, "put-back": 1},
         wants=((400,), (700,)), default_watts=500, steps_s=(10.0,), copied_first=True, strays=True, decisions=1,
         sharp=False, sharp_to_raise=True),
    SearchScope("two-gpus", "an agent dies between two writes", 1000, ((500, 400), (300, 700)),
          {"wants": 1, "restart": 1}, gpus=2, partial=True),
    _one("hold", "a profiler holds a parked GPU and is killed, and another planner leads",
         {"time": 1, "hold": 1, "fail-over": 1}, budget_watts=600, wants=((0,),), holds=((400, 4.5),), steps_s=(5.0,)),
    SearchScope("three-gpus", "an agent dies between three writes", 1500, ((500, 400, 300), (300, 500, 700)),
          {"wants": 1, "restart": 1}, gpus=3, partial=True, decisions=1),
)  # fmt: skip
_NIGHT = (
    SearchScope("hold-beside", "a profiler holds a free GPU beside a pool that wants more, and is killed", 1000,
          ((500, 0), (700, 0)), {"time": 1, "wants": 1, "hold": 1}, gpus=2, holds=((400, 4.5), (600, 4.5)),
          decisions=1, long=True),
    _two("climb", "a cut while an agent's lease has lapsed", {"time": 1, "order": 1}, budget_watts=1200,
         wants=((600, 600),), orders_watts=(900,), steps_s=(11.0,)),
    _two("settling", "power follows a lower limit a second later", {"time": 1, "wants": 1},
         wants=((500, 400), (400, 500)), steps_s=(1.0,), draw_lag_s=1.0),
    _one("crash-twice", "two crashes among more changes", {"time": 2, "wants": 2, "restart": 2}, wants=ONE,
         steps_s=(4.0, 9.0), long=True),
    _one("fail-over-twice", "two fail-overs, telemetry lost, and a crash",
         {"time": 2, "wants": 2, "fail-over": 2, "restart": 1}, telemetry_lost=True, long=True),
    _one("long-backlog", "five decisions may still arrive", {"time": 2, "wants": 4}, wants=ONE, decisions=5, long=True),
    _one("put-back-fail-over", "the bus is put back, decisions of before still arrive, and another planner leads",
         {"time": 1, "put-back": 1, "fail-over": 1}, wants=((400,), (700,)), default_watts=500, steps_s=(10.0,),
         copied_first=True, strays=True, decisions=1, sharp=False, sharp_to_raise=True, long=True),
    _one("put-back-under-way", "the bus is put back while a grant is under way",
         {"time": 1, "wants": 1, "put-back": 1}, wants=((400,), (700,), (600,)), default_watts=500, steps_s=(10.0,),
         copied_first=True, strays=True, decisions=1, sharp=False, sharp_to_raise=True, long=True),
    _two("steady", "watts move between two nodes", {"time": 2, "wants": 2}, steps_s=(4.0, 9.0)),
    _two("two-fail-over", "watts move between two nodes, and another planner leads",
         {"time": 1, "wants": 1, "fail-over": 1}),
    _two("uncommanded", "another planner leads before a node that has no decision yet has reported to it",
         {"time": 1, "wants": 1, "fail-over": 1}, wants=((400, 400), (500, 400)), default_watts=400, steps_s=(10.0,),
         expected=False, symmetric=False, sharp=False, telemetry_lost=True, uncommanded=1, reports_in_time=True,
         budget_watts=850),
    _two("cut", "a cut, and its release", {"time": 2, "wants": 1, "order": 2}, budget_watts=1200,
         wants=((300, 300), (600, 600)), orders_watts=(900, None), steps_s=(4.0, 11.0)),
    _two("tiny-budget", "a budget below the smallest caps", {"time": 1, "wants": 1, "order": 2},
         orders_watts=(350, None)),
    _two("late-join", "a node joins that was announced", {"time": 1, "wants": 1, "join": 1}, late=1,
         symmetric=False, sharp=False),
    _two("two-reset", "a driver reset, and a neighbour that wants more", {"time": 1, "wants": 1, "reset": 1},
         sharp=False),
    _two("removal", "a node is switched off, removed by order, and comes back",
         {"time": 1, "wants": 1, "switch-off": 1, "remove": 1, "join": 1}, sharp=False),
    _two("two-reboot", "a node reboots beside another", {"time": 1, "wants": 1, "reboot": 1}, sharp=False),
    _two("silence", "a week in which one node is silent, and another planner leads",
         {"time": 1, "wants": 1, "fail-over": 1, "week": 1}, budget_watts=700, wants=((200, 500), (200, 700)),
         expected=False, steps_s=(10.0,), symmetric=False),
    _two("restore", "the bus is put back from a copy older than the last exchange", {"time": 2, "put-back": 1},
         wants=((500, 400), (400, 500)), steps_s=(4.0, 10.0), copied_first=True, sharp=False),
    _two("restore-fail-over", "the bus is put back, decisions of before still arrive, and another planner leads",
         {"time": 2, "put-back": 1, "fail-over": 1}, wants=((500, 400), (400, 500)), steps_s=(4.0, 10.0),
         copied_first=True, strays=True, sharp=False),
    _two("restore-under-way", "the bus is put back while grants are under way",
         {"time": 2, "wants": 1, "put-back": 1}, wants=((500, 400), (400, 500)), steps_s=(4.0, 10.0),
         copied_first=True, strays=True, sharp=False),
    _two("restore-joined", "a copy is put back that lacks a node, whose agent may be dead above the default",
         {"time": 2, "put-back": 1, "fail-over": 1}, budget_watts=1000, wants=((700, 300), (300, 700)),
         steps_s=(4.0, 10.0), copied_first=True, copy_lacks=1, strays=True, sharp=False, default_watts=500,
         symmetric=False),
    _two("bus-lost", "the bus has lost everything, and agents hold live leases above the default",
         {"time": 1, "wants": 1, "put-back": 1}, budget_watts=1000, wants=((700, 300), (300, 700)),
         steps_s=(4.0, 10.0), copied_first=True, copy_lacks=2, strays=True, sharp=False, default_watts=500),
    _two("restore-above-default", "a copy is put back while a dead agent holds a grant above the GPU's default",
         {"time": 2, "put-back": 1}, budget_watts=1000, wants=((300, 700), (700, 300)), steps_s=(4.0, 10.0),
         copied_first=True, sharp=False, default_watts=500),
)  # fmt: skip
SCOPES: dict[str, SearchScope] = {scope.name: scope for scope in (*_GATE, *_NIGHT)}
