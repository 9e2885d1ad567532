"""A path through a search in words, and as a line that runs it again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deploy.fault_simulation.exhaustive.actions import Action
from deploy.fault_simulation.exhaustive.calm import beginning, judged
from deploy.fault_simulation.exhaustive.model_state import ModelState, Stored, gpu_id, node_id
from deploy.fault_simulation.exhaustive.mutation_patches import mutated
from deploy.fault_simulation.exhaustive.scope import SearchScope
from deploy.fault_simulation.exhaustive.search import Remembered, steps
from planner.domain.observation import PowerAckSeen


class UnknownStepError(ValueError):
    """A story with a step that cannot be taken there; one line."""


@dataclass(frozen=True, slots=True)
class Retelling:
    """A story in words: its lines, and the promise that its last step broke or that calm weather did not restore."""

    lines: tuple[str, ...]
    sentence: str


def line_of(scope: SearchScope, mutation: str | None, story: Sequence[Action]) -> str:
    """What runs a story again, from a shell."""
    words = ["wattscale prove --exhaustive", scope.name]
    if mutation is not None:
        words += ["--mutate", mutation]
    return " ".join([*words, f"--story '{' '.join(map(written, story))}'"])


def written(action: Action) -> str:
    """An action as one word."""
    return ":".join([action[0], *[str(number) for number in action[1:] if number >= 0]])


def read(text: str) -> list[Action]:
    """The actions of ``--story``. Raises UnknownStepError."""
    found: list[Action] = []
    for word in text.split():
        kind, *numbers = word.split(":")
        if len(numbers) > 2 or not all(number.isdecimal() for number in numbers):
            raise UnknownStepError(f"{word!r} is not a step: kind, or kind:number, or kind:number:number")
        values = [int(number) for number in numbers]
        if kind in _OF_ALL and len(values) == 1:
            values.insert(0, -1)
        n, index = (*values, -1, -1)[:2]
        found.append((kind, n, index))
    return found


_OF_ALL = {"time", "want", "order", "hold"}
"""Kinds whose one number is a choice and not a node."""


def replay_story(scope: SearchScope, mutation: str | None, story: Iterable[Action]) -> Retelling:
    """The story from its beginning, step by step, over the real code. Raises UnknownStepError."""
    with mutated(mutation):
        world, memory = beginning(scope), Remembered(scope)
        lines = [f"{'at rest':58} {_stand(world)}"]
        for action in story:
            found = next(
                (step for step in steps(scope, world, memory, own=mutation is None) if step[0] == action), None
            )
            if found is None:
                raise UnknownStepError(f"{written(action)!r} cannot happen there")
            _, after, sentence = found
            lines.append(f"{_words(scope, world, after, action):58} {_stand(after)}")
            if sentence:
                return Retelling(tuple(lines), sentence)
            world = after
        return Retelling(tuple(lines), judged(scope, world))


def _stand(world: ModelState) -> str:
    """Hardware and charges, in watts."""
    parts = []
    for n, node in enumerate(world.nodes):
        page = world.leader.nodes.get(node_id(n))
        limits = "+".join(f"{gpu.set_mw / 1000:g}" for gpu in node.gpus)
        charged = "unknown" if page is None else "+".join(f"{mw / 1000:g}" for mw in page.charge_mw)
        parts.append(f"n{n} {limits} W (charged {charged})")
    return ", ".join(parts) + f" = {world.total_mw() / 1000:g} of {world.budgets[-1][1] / 1000:g} W"


def _decision(stored: Stored) -> str:
    order = stored.order
    watts = "+".join(f"{cap.setpoint.cap_mw / 1000:g}" for cap in order.caps)
    return f"decision {order.decision_id} ({watts} W{', only lowers' if order.only_lowers else ''})"


def _answer(answer: PowerAckSeen) -> str:
    watts = "+".join("?" if g.enforced_mw is None else f"{g.enforced_mw / 1000:g}" for g in answer.gpus)
    return f"answer to decision {answer.decision_id} ({answer.status}, {watts} W)"


def _words(scope: SearchScope, before: ModelState, after: ModelState, action: Action) -> str:
    kind, n, index = action
    if kind == "tick":
        fresh = [
            f"n{i} {_decision(now.decisions[-1])}"
            for i, (was, now) in enumerate(zip(before.nodes, after.nodes, strict=True))
            if now.decisions and (not was.decisions or now.decisions[-1] is not was.decisions[-1])
        ]
        return "the leader decides: " + ("; ".join(fresh) or "nothing")
    if kind in {"deliver", "receive-answer"}:
        node = before.nodes[n]
        what = _decision(node.arriving[index]) if kind == "deliver" else _answer(node.answers[index])
        return f"{what} reaches {f'n{n}' if kind == 'deliver' else 'the leader'}"
    if kind.startswith("cut-off-"):
        return f"n{n} receives {_decision(before.nodes[n].arriving[index])}, dies after {kind[8:]} writes, starts anew"
    if kind == "time":
        return f"{scope.steps_s[index]:g} s pass"
    if kind == "hold":
        held_watts, for_s = scope.holds[index]
        return f"a profiler holds {gpu_id(0, scope.gpus - 1)} at {held_watts} W for {for_s:g} s"
    if kind == "want":
        return f"wants become {'+'.join(map(str, scope.wants[index]))} W"
    if kind == "order":
        watts = scope.orders_watts[index]
        return "the budget order is lifted" if watts is None else f"the budget is ordered to {watts} W"
    if kind == "bound":
        watts = scope.bounds_watts[index]
        return f"n{n} is no longer bounded" if watts is None else f"an annotation bounds n{n} to {watts} W"
    return _PLAIN[kind].format(n=f"n{n}")


_PLAIN = {
    "receive-order": "the leader receives the budget order",
    "old-tick": "the former leader decides, and does not know that it was replaced",
    "look": "{n}'s agent reconciles",
    "report": "{n} reports",
    "receive-report": "an older report of {n} reaches the leader",
    "restart": "{n}'s agent crashes and starts anew",
    "reset": "{n}'s driver resets its GPUs",
    "reboot": "{n} reboots",
    "switch-off": "{n} is switched off",
    "join": "{n} is switched on",
    "remove": "an operator removes {n}",
    "week": "a week passes in which {n} is silent",
    "fail-over": "the leader dies, the next one leads",
    "copy": "the bus is copied",
    "put-back": "the bus is put back from its copy, a planner leads",
}
