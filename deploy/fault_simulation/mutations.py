"""Deliberate faults in the product itself: a proof that cannot fail proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from agent.core import caps
from agent.core.caps import Acceptance
from planner.core import coverage, gpu_holds
from planner.core.power import charging, site_ledger
from planner.core.power.node_ledger import NodeLedger, total_of
from planner.core.power.site_state import PowerState

_absorbed = gpu_holds.absorbed


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


def _nothing_pledged(nodes: object, gpus: int, unknown_mw: int | None) -> int:
    """Publishes a scale-up without reserving what its replicas may draw where they start."""
    return 0


def _as_decided(ledger: NodeLedger) -> tuple[int, ...]:
    """Takes a GPU that a worker has left for parked as soon as that is decided."""
    rows = zip(ledger.caps_mw or ledger.cost_mw, ledger.cost_mw, strict=True)
    return tuple([cap or cost for cap, cost in rows])


def _at_once(ledger: NodeLedger, now_s: float, step_mw: int) -> NodeLedger:
    """Lets a GPU leave the budget with its pod."""
    if ledger.covered is None:
        return ledger
    rows = zip(ledger.covered, ledger.held, ledger.wanted or (None,) * len(ledger.held), strict=True)
    covered = tuple([counts and (held or want is not None) for counts, held, want in rows])
    return ledger._replace(covered=covered, total_mw=total_of(ledger.cost_mw, covered))


def _without_end(state: PowerState, commands: Any, config: Any, now_s: float) -> PowerState:
    """Lets a hold count although its profiler no longer renews it."""
    return _absorbed(
        replace(state, holds=tuple([replace(h, issued_s=now_s) for h in state.holds])), commands, config, now_s
    )


Patch = tuple[Any, str, Callable[..., Any]]

MUTATIONS: dict[str, tuple[Patch, ...]] = {
    "raise-before-lower": ((site_ledger, "charged_mw", _planned_mw),),
    "ignore-unacked-grants": ((charging, "charge_of", _only_proven),),
    "default-on-expiry": ((caps, "fallen", _to_default),),
    "fencing-off": ((caps, "judge", _accept_all),),
}
"""Faults that the proof finds whichever GPUs the budget covers."""
WORKERS_MUTATIONS: dict[str, tuple[Patch, ...]] = {
    "unreserved-scale-up": ((coverage, "pledge_mw", _nothing_pledged),),
}
"""Faults in what a budget covers, which can show where it covers workers only."""
HOLD_MUTATIONS: dict[str, tuple[Patch, ...]] = {
    "hold-without-end": ((gpu_holds, "absorbed", _without_end),),
}
"""Faults in holds. The ledger grants no watt too many whatever is wanted, so that calm weather shows them."""
EVERY_MUTATION = {**MUTATIONS, **WORKERS_MUTATIONS, **HOLD_MUTATIONS}
RELEASED_BEFORE_READBACK: tuple[Patch, ...] = (
    (coverage, "without_left", _at_once),
    (coverage, "landing_mw", _as_decided),
)
"""A GPU leaves the budget with its pod. A replica must land on it in the moment before its limit falls: too rare for
the random proof, so that a test of the planner's core looks for it."""


def mutated(name: str | None) -> AbstractContextManager[None]:
    """A context in which the product has one mutation."""
    return patched(EVERY_MUTATION[name] if name is not None else ())


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
