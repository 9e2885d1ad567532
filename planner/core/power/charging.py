"""How the ledger of one node changes: the most that each of its GPUs may draw, by telemetry and acknowledgements.

Owns the charge W(g). Must never free a watt by the passing of time or by telemetry: only an acknowledgement of a later
decision, read back from the hardware, lowers a charge, and even then the old charge is held until it has settled. Why:
messages may be delayed, agents down and clocks stopped for any length of time.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import le

from planner.core.power.node_ledger import NEVER_S, NOT_DECIDED, Cards, Column, NodeLedger, Sent, total_of
from planner.domain.observation import GpuCapInForce, GpuObservation, NodeObservation, PowerAckSeen, StoredCaps

MOST_SENT = 8
"""Number of decisions kept separately while a node does not answer; beyond it the two oldest are merged, with the
higher caps."""


def charge_of(hardware_mw: Column, sent: Iterable[Sent]) -> Column:
    """W: the highest of what was proven and of every decision that the agent may still act on."""
    columns = [s.caps_mw for s in sent if s.caps_mw != hardware_mw]
    return tuple(map(max, hardware_mw, *columns)) if columns else hardware_mw


def _limit(gpu: GpuObservation | GpuCapInForce) -> int | None:
    """The higher of requested and enforced: what limits the GPU besides the request may go away by itself."""
    if gpu.enforced_mw is None:
        return None
    return max(gpu.enforced_mw, gpu.requested_mw or 0)


def _cards(gpus: Iterable[GpuObservation]) -> Cards:
    rows = sorted(gpus, key=lambda g: g.gpu)
    return Cards(
        tuple(g.gpu for g in rows),
        tuple(g.default_mw for g in rows),
        tuple(g.min_mw for g in rows),
        tuple(g.max_mw for g in rows),
    )


def _never_proven(gpu: GpuObservation) -> int:
    return max(gpu.default_mw, _limit(gpu) or 0)


def enroll(seen: NodeObservation, now_s: float, next_id: int = 0) -> NodeLedger:
    """A node that no planner has commanded: every GPU at its default, because that is where a reload puts it.

    ``next_id``: for a node that was removed and is back. Acknowledgements from before its removal free nothing.
    """
    cards = _cards(seen.gpus.values())
    hardware = tuple(_never_proven(seen.gpus[gpu]) for gpu in cards.gpus)
    blank = (False,) * len(cards.gpus)
    bare = NodeLedger(seen.node, cards, hardware, blank, blank, (), None, hardware, hardware, sum(hardware))
    return with_report(bare._replace(next_id=next_id, acked_id=next_id - 1), seen, now_s)


def inherit(stored: StoredCaps) -> NodeLedger:
    """A node as the previous leader left it. Limits are unknown until the node reports."""
    gpus = tuple(sorted(stored.charged_mw))
    charged = tuple(stored.charged_mw[gpu] for gpu in gpus)
    rows = [(stored.setpoints.get(gpu), charge) for gpu, charge in zip(gpus, charged, strict=True)]
    caps = tuple([charge if setpoint is None else min(setpoint.cap_mw, charge) for setpoint, charge in rows])
    highest = tuple(max(stored.highest_mw.get(gpu, 0), charge) for gpu, charge in zip(gpus, charged, strict=True))
    cards = Cards(gpus, highest, (0,) * len(gpus), highest)
    return NodeLedger(
        stored.node,
        cards,
        hardware_mw=(0,) * len(gpus),
        healthy=(True,) * len(gpus),
        busy=(True,) * len(gpus),
        sent=(Sent(stored.decision_id, charged),),
        caps_mw=caps,
        charge_mw=charged,
        cost_mw=charged,
        total_mw=sum(charged),
        next_id=stored.decision_id + 1,
        proven=False,
        inherited_s=stored.stored_s,
    )


def doubt(ledger: NodeLedger, least_mw: int) -> NodeLedger:
    """An inherited ledger that may be older than the last grants: its GPUs at their highest limits until it answers.

    Not at their defaults, because a grant made after the copy may have been above the default. ``least_mw``: the
    highest limit of a GPU whose own is not known.
    """
    if ledger.proven:
        return ledger
    highest = ledger.cards.highest_mw
    if ledger.seen is None:
        highest = tuple([max(each, least_mw) for each in highest])
    hardware = tuple(map(max, ledger.hardware_mw, highest))
    return ledger if hardware == ledger.hardware_mw else _recharged(ledger, hardware, ledger.sent)


def with_report(ledger: NodeLedger, seen: NodeObservation, now_s: float) -> NodeLedger:
    """The ledger after telemetry, which may raise a charge (drift, a reset, a foreign writer) but never lowers one.

    A report that comes after a later one raises charges too, and shows nothing else: its pods and draws are the past.
    """
    if seen is ledger.seen:
        return ledger
    if len(seen.gpus) != len(ledger.cards.gpus) or not all(map(seen.gpus.__contains__, ledger.cards.gpus)):
        ledger = _with_gpus(ledger, seen)
    rows = [seen.gpus.get(gpu) for gpu in ledger.cards.gpus]
    hardware = _with_reported(ledger, seen, rows)
    fresh = ledger if _comes_late(ledger, seen) else _showing(ledger, seen, rows, now_s)
    return fresh if hardware is ledger.hardware_mw else _recharged(fresh, hardware, fresh.sent)


def _with_reported(ledger: NodeLedger, seen: NodeObservation, rows: list[GpuObservation | None]) -> Column:
    """The limits that may stand on the hardware, the reported ones included; the same object where none is higher."""
    if not _newer(ledger, seen.boot, seen.clock_s):
        return ledger.hardware_mw
    reported = [0 if row is None else _reported_mw(row) for row in rows]
    if all(map(le, reported, ledger.charge_mw)):
        return ledger.hardware_mw
    return tuple(map(max, ledger.hardware_mw, reported))


def _comes_late(ledger: NodeLedger, seen: NodeObservation) -> bool:
    """Whether a report is older than the last one that was taken in. Processes of one machine share its clock."""
    last = ledger.seen
    if last is None or seen.clock_s is None or last.clock_s is None:
        return False
    machine = seen.boot.partition("/")[0]
    return machine != "" and machine == last.boot.partition("/")[0] and seen.clock_s < last.clock_s


def _showing(ledger: NodeLedger, seen: NodeObservation, rows: list[GpuObservation | None], now_s: float) -> NodeLedger:
    """The ledger with what a report shows of pods, health, draws and limits."""
    healthy = ledger.healthy
    if _newer(ledger, seen.boot, seen.clock_s):
        healthy = tuple([row is not None and row.healthy for row in rows])
    known = [row for row in rows if row is not None]
    draws = [row.draw_mw for row in known if row.draw_mw is not None]
    boot, clock_s, reported_s = _echo(ledger, seen.boot, seen.clock_s, now_s - seen.age_s)
    busy = tuple([row is None or _held(row) for row in rows])
    cards = _limits(ledger.cards, rows)
    return ledger._replace(
        cards=cards,
        healthy=healthy,
        busy=busy,
        seen=seen,
        goal_mw=ledger.goal_mw if busy == ledger.busy and cards is ledger.cards else None,
        enforced_mw=sum([row.enforced_mw or 0 for row in known]),
        draw_mw=sum(draws) if len(draws) == len(rows) else None,
        heard_boot=boot,
        heard_clock_s=clock_s,
        reported_s=reported_s,
    )


def _reported_mw(gpu: GpuObservation) -> int:
    """The most that a GPU may draw by this report; 0 where the report has no limit for it."""
    limit = gpu.enforced_mw
    if limit is None:
        limit = 0
    elif gpu.requested_mw is not None and gpu.requested_mw > limit:
        limit = gpu.requested_mw
    return limit if gpu.healthy or limit > gpu.default_mw else gpu.default_mw


def _held(gpu: GpuObservation) -> bool:
    """Whether a pod holds the GPU, one that is leaving included."""
    return gpu.worker is not None or gpu.deployment is not None or gpu.terminating


def _newer(ledger: NodeLedger, boot: str, clock_s: float | None) -> bool:
    """Whether a report is later than the last acknowledgement that freed watts; True in doubt, as it can only raise."""
    if clock_s is None or ledger.clock_s is None or boot != ledger.boot:
        return True
    return clock_s > ledger.clock_s


def _echo(ledger: NodeLedger, boot: str, clock_s: float | None, reported_s: float) -> tuple[str, float | None, float]:
    """The newest report, to be named in decisions: a delayed report must not take the place of a later one."""
    known = (ledger.heard_boot, ledger.heard_clock_s, ledger.reported_s)
    same = boot == ledger.heard_boot and clock_s is not None and ledger.heard_clock_s is not None
    if same and (clock_s or 0.0) < (ledger.heard_clock_s or 0.0):
        return known
    if boot != ledger.heard_boot and reported_s < ledger.reported_s:
        return known
    return boot, clock_s, max(reported_s, ledger.reported_s)


def _limits(cards: Cards, rows: list[GpuObservation | None]) -> Cards:
    known = zip(rows, cards.default_mw, cards.min_mw, cards.max_mw, strict=True)
    if all(row is None or (row.default_mw == d and row.min_mw == lo and row.max_mw == hi) for row, d, lo, hi in known):
        return cards
    default = tuple([d if row is None else row.default_mw for row, d in zip(rows, cards.default_mw, strict=True)])
    low = tuple([d if row is None else row.min_mw for row, d in zip(rows, cards.min_mw, strict=True)])
    high = tuple([d if row is None else row.max_mw for row, d in zip(rows, cards.max_mw, strict=True)])
    return Cards(cards.gpus, default, low, high)


def _with_gpus(ledger: NodeLedger, seen: NodeObservation) -> NodeLedger:
    """New GPUs join at their default. A GPU that is missing from a report stays in the ledger: unknown is not gone."""
    known = set(ledger.cards.gpus)
    fresh = [gpu for gpu in seen.gpus.values() if gpu.gpu not in known]
    if not fresh:
        return ledger
    extra = _cards(fresh)
    hardware = tuple(_never_proven(seen.gpus[gpu]) for gpu in extra.gpus)
    none, undecided = (False,) * len(fresh), (NOT_DECIDED,) * len(fresh)
    all_covered = ledger.covered is None
    older = tuple(Sent(s.decision_id, s.caps_mw + (0,) * len(fresh)) for s in ledger.sent[:-1])
    # The next renewal repeats the caps of the newest decision: uncharged, that would be a raise without watts.
    newest = tuple(Sent(s.decision_id, s.caps_mw + hardware) for s in ledger.sent[-1:])
    cards = Cards(
        ledger.cards.gpus + extra.gpus,
        ledger.cards.default_mw + extra.default_mw,
        ledger.cards.min_mw + extra.min_mw,
        ledger.cards.max_mw + extra.max_mw,
    )
    return ledger._replace(
        cards=cards,
        hardware_mw=ledger.hardware_mw + hardware,
        healthy=ledger.healthy + none,
        busy=ledger.busy + none,
        sent=older + newest,
        caps_mw=None if ledger.caps_mw is None else ledger.caps_mw + (hardware if all_covered else undecided),
        charge_mw=ledger.charge_mw + hardware,
        cost_mw=ledger.cost_mw + hardware,
        total_mw=ledger.total_mw + (sum(hardware) if all_covered else 0),
        covered=None if ledger.covered is None else ledger.covered + none,
        held=() if all_covered else ledger.held + none,
        wanted=None if ledger.wanted is None else ledger.wanted + (None,) * len(fresh),
        goal_mw=None,
    )


def _recharged(ledger: NodeLedger, hardware_mw: Column, sent: tuple[Sent, ...]) -> NodeLedger:
    """The ledger with new charges. Held charges stay held: the cost never falls here."""
    charge, cost = _charges(ledger, hardware_mw, sent)
    total = total_of(cost, ledger.covered)
    return ledger._replace(hardware_mw=hardware_mw, sent=sent, charge_mw=charge, cost_mw=cost, total_mw=total)


def _charges(ledger: NodeLedger, hardware_mw: Column, sent: tuple[Sent, ...]) -> tuple[Column, Column]:
    charge = charge_of(hardware_mw, sent)
    return charge, charge if charge == ledger.cost_mw else tuple(map(max, charge, ledger.cost_mw))


def acknowledge(ledger: NodeLedger, ack: PowerAckSeen, now_s: float, settle_s: float) -> NodeLedger:
    """The ledger after an acknowledgement of one of OUR decisions: the only event that lowers a charge.

    An agent refuses ids below one that it has accepted, so that an answer to ``decision_id`` ends all earlier ones; the
    answered one remains the agent's intent. An answer that is not the newest can only raise.
    """
    rows = {gpu.gpu: gpu for gpu in ack.gpus}
    newest = ack.decision_id > ledger.acked_id or (
        ack.decision_id == ledger.acked_id
        and ack.boot == ledger.boot
        and (ack.clock_s or 0.0) >= (ledger.clock_s or 0.0)
    )
    if not newest or ack.decision_id >= ledger.next_id or ack.status == "rejected":
        return contradict(ledger, ack)
    sent = tuple(s for s in ledger.sent if s.decision_id >= ack.decision_id)
    columns = zip(ledger.cards.gpus, ledger.cards.default_mw, ledger.charge_mw, strict=True)
    hardware = tuple([_proven(rows.get(gpu), default, charge) for gpu, default, charge in columns])
    healthy = [(row := rows.get(gpu)) is not None and row.healthy for gpu in ledger.cards.gpus]
    boot, clock_s, reported_s = _echo(ledger, ack.boot, ack.clock_s, now_s)
    answered = ack.decision_id >= ledger.next_id - 1
    charge, cost = _charges(ledger, hardware, sent)
    freed = not all(map(le, ledger.charge_mw, charge))
    return ledger._replace(
        hardware_mw=hardware,
        sent=sent,
        charge_mw=charge,
        cost_mw=cost,
        total_mw=total_of(cost, ledger.covered),
        healthy=tuple(healthy),
        acked_id=ack.decision_id,
        proven=True,
        boot=ack.boot,
        clock_s=ack.clock_s,
        heard_boot=boot,
        heard_clock_s=clock_s,
        reported_s=reported_s,
        unanswered_s=None if answered else now_s,
        held_until_s=now_s + settle_s if freed else ledger.held_until_s,
    )


def _proven(row: GpuCapInForce | None, default_mw: int, charge_mw: int) -> int:
    if row is None or (limit := _limit(row)) is None:
        return charge_mw
    return max(limit, default_mw) if row.reset or not row.healthy else limit


def contradict(ledger: NodeLedger, ack: PowerAckSeen) -> NodeLedger:
    """The ledger after an answer that may raise but not free: an older one, another leader's, a refusal."""
    if ack.decision_id >= ledger.next_id:
        # The agent has seen higher ids than we know of: continue above them, or it will refuse every decision.
        ledger = ledger._replace(next_id=ack.decision_id + 1, sent_s=NEVER_S)
    if not _newer(ledger, ack.boot, ack.clock_s):
        return ledger
    rows = {gpu.gpu: gpu for gpu in ack.gpus}
    columns = zip(ledger.cards.gpus, ledger.cards.default_mw, ledger.hardware_mw, ledger.charge_mw, strict=True)
    hardware = []
    for gpu, default, known, charge in columns:
        proven = _proven(rows.get(gpu), default, 0)
        hardware.append(proven if proven > charge else known)
    return _recharged(ledger, tuple(hardware), ledger.sent)


def issue(
    ledger: NodeLedger, caps_mw: Column, now_s: float, *, raises: bool, share: int = 0, marked: bool = False
) -> NodeLedger:
    """The ledger after issuing a decision, which is charged from this instant on, published or not.

    A GPU that the decision leaves to others is charged its default: the agent gives back a limit that it had lowered.
    ``share``: the site's share of the configured fallbacks; ``marked``: the decision charges the highest limits.
    """
    sent = ledger.sent
    if len(sent) >= MOST_SENT:
        merged = Sent(sent[1].decision_id, tuple(map(max, sent[0].caps_mw, sent[1].caps_mw)))
        sent = (merged, *sent[2:])
    granted = caps_mw
    if ledger.covered is not None:
        rows = zip(caps_mw, ledger.cards.default_mw, strict=True)
        granted = tuple([default if cap == NOT_DECIDED else cap for cap, default in rows])
    sent = (*sent, Sent(ledger.next_id, granted))
    charge, cost = _charges(ledger, ledger.hardware_mw, sent)
    # A GPU that is left to others had its present cap as its goal until now: no later decision may lower it to that.
    left = NOT_DECIDED in caps_mw and caps_mw != ledger.caps_mw
    return ledger._replace(
        sent=sent,
        charge_mw=charge,
        cost_mw=cost,
        total_mw=total_of(cost, ledger.covered),
        sent_share=share,
        marked=marked,
        caps_mw=caps_mw,
        goal_mw=None if left else ledger.goal_mw,
        next_id=ledger.next_id + 1,
        sent_s=now_s,
        unanswered_s=now_s if ledger.unanswered_s is None else ledger.unanswered_s,
        raised_s=now_s if raises else ledger.raised_s,
    )


def settle(ledger: NodeLedger, now_s: float, settle_s: float) -> NodeLedger:
    """The ledger without held charges whose settle time is over. A clock that was set back starts that time again."""
    if ledger.cost_mw == ledger.charge_mw:
        return ledger
    if now_s < ledger.held_until_s:
        return ledger if ledger.held_until_s - now_s <= settle_s else ledger._replace(held_until_s=now_s + settle_s)
    return ledger._replace(cost_mw=ledger.charge_mw, total_mw=total_of(ledger.charge_mw, ledger.covered))
