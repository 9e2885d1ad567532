"""Four deliberate faults in the product itself: a proof that cannot fail proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from agent.core import caps
from agent.core.caps import Acceptance
from planner.core.power import charging, site_ledger
from planner.core.power.site_state import PowerState


def _planned_mw(state: PowerState) -> int:
    """Treats a lower as done as soon as it is sent."""
    return sum(sum(page.caps_mw or page.cost_mw) for page in state.nodes.values())


def _only_proven(hardware_mw: tuple[int, ...], sent: object) -> tuple[int, ...]:
    """Charges a raise only after its acknowledgement."""
    return hardware_mw


def _to_default(line: Any) -> Any:
    """An agent that restores the defaults when its lease ends."""
    return replace(line, ceiling_mw=10**9, may_raise=True)


def _accept_all(state: object, decision: object) -> Acceptance:
    """An agent that ignores epochs and ids; the bus does not fence either."""
    return Acceptance.ACCEPTED


Patch = tuple[Any, str, Callable[..., Any]]

MUTATIONS: dict[str, tuple[Patch, ...]] = {
    "raise-before-lower": ((site_ledger, "charged_mw", _planned_mw),),
    "ignore-unacked-grants": ((charging, "charge_of", _only_proven),),
    "default-on-expiry": ((caps, "fallen", _to_default),),
    "fencing-off": ((caps, "judge", _accept_all),),
}


def mutated(name: str | None) -> AbstractContextManager[None]:
    """A context in which the product has one mutation."""
    return patched(MUTATIONS[name] if name is not None else ())


@contextmanager
def patched(patches: Iterable[Patch]) -> Iterator[None]:
    """A context in which each patch's attribute is its function."""
    replaced = tuple(patches)
    before = [(module, attribute, getattr(module, attribute)) for module, attribute, _ in replaced]
    try:
        for module, attribute, function in replaced:
            setattr(module, attribute, function)
        yield
    finally:
        for module, attribute, function in before:
            setattr(module, attribute, function)
