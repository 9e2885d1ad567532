"""Faults put into the product on purpose: the search must find each, by what hardware may do or by calm weather.

The random proof's four are among them. ``SHOWN_BY`` names the scope that shows each; ``README.md`` has the stories.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from agent.core import caps
from agent.core.caps import Acceptance
from agent.core.deadman import CapLease, lease_of
from bus_schemas import streams
from deploy.fault_simulation.exhaustive import leaders, nodes
from deploy.fault_simulation.mutations import MUTATIONS as FOUR
from deploy.fault_simulation.mutations import patched
from planner.core.power import charging, site_ledger, site_state

WEEK_S = 7 * 86_400.0
_judge, _lease_of, _receive = caps.judge, lease_of, caps.receive
_acknowledge, _with_report, _settle = charging.acknowledge, charging.with_report, charging.settle
_inherit, _initial, _max_age_s = charging.inherit, site_ledger.initial, nodes.max_age_s


def _ids_off(state: Any, decision: Any) -> Acceptance:
    """As an agent that takes whatever comes last for the newest."""
    found = _judge(state, decision)
    return Acceptance.ACCEPTED if found is Acceptance.OLDER_ID else found


def _any_process(*arguments: Any) -> CapLease | None:
    """As an agent that raises for a decision which was made for its predecessor."""
    lease = _lease_of(*arguments)
    return None if lease is None else replace(lease, ours=True)


def _from_receipt(boot: str, heard_boot: str, heard_clock_s: float | None, valid_for_s: float, now_s: float) -> Any:
    """As an agent whose leases run from a decision's arrival."""
    lease = _lease_of(boot, heard_boot, heard_clock_s, valid_for_s, now_s)
    return None if lease is None else replace(lease, ends_s=now_s + valid_for_s)


def _always_raising(state: Any, decision: Any, now_s: float) -> Any:
    """As an agent that climbs back to its cap although the site is above its budget."""
    return _receive(state, replace(decision, only_lowers=False), now_s)


def _recharged(page: Any, hardware_mw: Any, sent: Any) -> Any:
    charge = charging.charge_of(hardware_mw, sent)
    return page._replace(hardware_mw=hardware_mw, sent=sent, charge_mw=charge, cost_mw=charge, total_mw=sum(charge))


def _forgotten_in_silence(page: Any, now_s: float, settle_s: float) -> Any:
    """As if a decision that was not answered within a lease had never been sent."""
    page = _settle(page, now_s, settle_s)
    if page.unanswered_s is None or now_s - page.unanswered_s < 9.0 or len(page.sent) < 2:
        return page
    return _recharged(page, page.hardware_mw, page.sent[:1])


def _freed_by_telemetry(page: Any, seen: Any, now_s: float) -> Any:
    """As if a report proved a limit as an answer does."""
    page = _with_report(page, seen, now_s)
    return _recharged(page, tuple(seen.gpus[gpu].enforced_mw for gpu in page.cards.gpus), ())


def _answered_forgotten(page: Any, ack: Any, now_s: float, settle_s: float) -> Any:
    """As if an answered decision were over and the agent might not set its cap again."""
    fresh = _acknowledge(page, ack, now_s, settle_s)
    if fresh.acked_id != ack.decision_id:
        return fresh
    return _recharged(fresh, fresh.hardware_mw, tuple(s for s in fresh.sent if s.decision_id > ack.decision_id))


def _never_held(page: Any, ack: Any, now_s: float, _settle_s: float) -> Any:
    """As if power followed a limit at once."""
    fresh = _acknowledge(page, ack, now_s, 0.0)
    return fresh._replace(cost_mw=fresh.charge_mw, total_mw=sum(fresh.charge_mw))


def _caps_inherited(stored: Any) -> Any:
    """As a leader that takes its predecessor's caps for everything in flight."""
    return _inherit(replace(stored, charged_mw={gpu: setpoint.cap_mw for gpu, setpoint in stored.setpoints.items()}))


def _no_wait(config: Any, epoch: int, now_s: float, stored: Any = None, *, doubted: bool = False) -> Any:
    """As a leader that raises at once."""
    return replace(_initial(config, epoch, now_s, stored, doubted=doubted), raises_from_s=now_s)


def _copy_believed(config: Any, epoch: int, now_s: float, stored: Any = None, *, doubted: bool = False) -> Any:
    """As a leader that takes an old copy of the bus for its predecessor's last word."""
    del doubted
    return _initial(config, epoch, now_s, stored)


def _earlier_incarnation(state: Any, decision: Any) -> Acceptance:
    """As an agent that follows whatever counting a decision is of."""
    found = _judge(state, decision)
    strange = bool(state.incarnation) and decision.incarnation != state.incarnation
    return Acceptance.ACCEPTED if strange else found


def _climbs_when_proven(page: Any, state: Any, now_s: float) -> bool:
    """As a leader over an old copy that lets a node climb back to its inherited cap as soon as it has answered."""
    del now_s
    return state.over_since_s is not None or (state.doubted and not page.proven)


def _highest_default(state: Any) -> int:
    """As a ledger that charges unseen GPUs no more than their defaults."""
    return max([max(page.cards.default_mw, default=0) for page in state.nodes.values()], default=0)


def _never(*_: Any) -> bool:
    return False


def _always(*_: Any) -> bool:
    return True


def _a_week(stream: str) -> float:
    """As streams whose decisions age away."""
    return WEEK_S if stream in (streams.DECISIONS, streams.ACKS) else _max_age_s(stream)


Patch = tuple[Any, str, Callable[..., Any]]

EVERY: dict[str, tuple[Patch, ...]] = {
    **FOUR,
    "fencing-off": (*FOUR["fencing-off"], (leaders, "unfenced", _always)),
    "ids-off": ((caps, "judge", _ids_off),),
    "raise-for-an-earlier-process": ((caps, "lease_of", _any_process),),
    "silence-frees": ((site_ledger, "settle", _forgotten_in_silence),),
    "telemetry-frees": ((site_ledger, "with_report", _freed_by_telemetry),),
    "lease-from-receipt": ((caps, "lease_of", _from_receipt),),
    "answered-forgotten": ((site_ledger, "acknowledge", _answered_forgotten),),
    "caps-inherited": ((site_ledger, "inherit", _caps_inherited),),
    "settle-0": ((site_ledger, "acknowledge", _never_held),),
    "only-lowers-ignored": ((caps, "receive", _always_raising),),
    "new-leader-does-not-wait": ((site_ledger, "initial", _no_wait),),
    "decisions-age": ((nodes, "max_age_s", _a_week),),
    "parked-not-renewed": ((site_ledger, "_stands_above", _never),),
    "earlier-incarnation-taken": ((caps, "judge", _earlier_incarnation),),
    "climbs-when-proven": ((site_ledger, "_only_lowers", _climbs_when_proven),),
    "unseen-at-default": ((site_state, "highest_mw", _highest_default),),
    "copy-believed": ((site_ledger, "initial", _copy_believed), (site_ledger, "knows_more", _never)),
}


SHOWN_BY = {
    "raise-before-lower": "settling",
    "ignore-unacked-grants": "fenced",
    "default-on-expiry": "lease-edge",
    "fencing-off": "fenced",
    "ids-off": "backlog",
    "raise-for-an-earlier-process": "crash",
    "silence-frees": "late-reports",
    "telemetry-frees": "late-reports",
    "lease-from-receipt": "late-grant",
    "answered-forgotten": "annotation",
    "caps-inherited": "lost-telemetry",
    "settle-0": "settling",
    "only-lowers-ignored": "climb",
    "new-leader-does-not-wait": "uncommanded",
    "decisions-age": "silence",
    "parked-not-renewed": "reboot",
    "copy-believed": "put-back-granted",
    "earlier-incarnation-taken": "put-back-granted",
    "climbs-when-proven": "put-back",
    "unseen-at-default": "bus-lost",
}
"""The scope that shows each fault."""


def mutated(name: str | None) -> AbstractContextManager[None]:
    """The product with one mutation, for as long as the block runs."""
    return patched(EVERY[name] if name is not None else ())
