"""Reads from the bus what `wattscale verify` judges. Reads only; creates nothing on the server.

A part that cannot be read is Unknown, or named in ``unread``, so that one lost stream hides no other finding.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from bus_schemas import v1
from bus_schemas.errors import BusAwayError, BusError, NotPermittedError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.api import answer, ask, error_of, stream_info
from bus_schemas.jetstream.connect import Bus, server_version
from bus_schemas.jetstream.decision_history import decisions_state, forgetful, put_back
from bus_schemas.jetstream.reader import StoredMessage, all_messages, last_per_subject, last_raw, sequence_of
from bus_schemas.standing_lease import standing
from bus_schemas.streams import DECISIONS, TELEMETRY, stream_of
from bus_schemas.subjects import scaling_consumer
from deploy.cli.bus_connection import what_is_missing
from deploy.cli.verify.facts import BusFacts, ConsumerUse, NewestReport, Unknown
from deploy.views.bus_reader import claims
from deploy.views.site_view import SiteView

T = TypeVar("T")

KINDS = (
    ("decision", "scaling"),
    ("decision", "power"),
    ("ack", "scaling"),
    ("ack", "power"),
    ("telemetry", "node"),
    ("telemetry", "plan"),
    ("control", "node"),
)
RECENT_S = 10.0
"""How far back starts of agents are compared: two that report in turns are two agents."""
REPORTS_PER_NODE = 40
MOST_REPORTS = 4000
"""Most reports that are read to find second agents: 32 MB."""
CONSUMER_NOT_FOUND = 10014
NO_RIGHT = "this login may not ask; log in as a planner"


async def bus_facts(bus: Bus, replicas: int | None) -> BusFacts:
    """Everything that the bus shows. ``replicas``: copies that each stream should have; None: as many as it has."""
    now, own = await _clock(bus)
    view, unread, reports = SiteView(), dict[str, str](), dict[tuple[str, str], list[StoredMessage]]()
    for kind in KINDS:
        try:
            reports[kind] = await last_per_subject(bus, bus.subjects.all_of(*kind))
        except BusError as error:
            unread[".".join(kind)] = _reason(bus, kind, error)
            continue
        for stored in reports[kind]:
            view.add(stored.message)
    await _lease(bus, view, unread)
    await _claims(bus, view, unread)
    nodes = _reports(reports, ("ack", "power"), now) | _reports(reports, ("telemetry", "node"), now)
    changes = await _known(lambda: _changes(bus, replicas))
    return BusFacts(
        servers=", ".join(bus.settings.servers),
        version=shown_version(bus),
        now=now,
        own_ahead_s=own,
        changes=changes,
        missing=await what_is_missing(bus) if isinstance(changes, Unknown) else "",
        forgets=await _known(lambda: forgetful(bus)),
        put_back=await _known(lambda: _put_back(bus)),
        view=view,
        unread=unread,
        nodes=nodes,
        planners=_reports(reports, ("telemetry", "plan"), now),
        connectors=_reports(reports, ("ack", "scaling"), now),
        boots=await _boots(bus, now, len(view.nodes)),
        removed=_removed(reports.get(("control", "node"), ()), reports.get(("telemetry", "node"), ())),
        consumers=await _known(lambda: _consumers(bus, view.deployments)),
    )


def shown_version(bus: Bus) -> str:
    """The version that follows `nats-server` in the line of versions."""
    version = server_version(bus.nc)
    return ".".join(map(str, version)) if version else "of unknown version"


async def _known(read: Callable[[], Awaitable[T]]) -> T | Unknown:
    try:
        return await read()
    except NotPermittedError:
        return Unknown(NO_RIGHT)
    except BusError as error:
        return Unknown(NO_RIGHT if "not enabled for account" in str(error) else str(error))


async def _clock(bus: Bus) -> tuple[datetime, float | Unknown]:
    """The time by the server's clock, and how far this machine's is ahead of it."""
    before = datetime.now(UTC)
    state = await _known(lambda: decisions_state(bus))
    after = datetime.now(UTC)
    if state is None or isinstance(state, Unknown):
        return after, Unknown(f"the server's clock is not known: {DECISIONS} cannot be read")
    middle = before + (after - before) / 2
    return state.at, (middle - state.at).total_seconds()


def _reason(bus: Bus, kind: tuple[str, str], error: BusError) -> str:
    stream = stream_of(bus.subjects, bus.subjects.all_of(*kind))
    if isinstance(error, NotPermittedError):
        return f"this login may not read {stream}"
    return f"{stream} does not answer" if isinstance(error, BusAwayError) else f"{stream}: {error}"


async def _lease(bus: Bus, view: SiteView, unread: dict[str, str]) -> None:
    """Add the leader's lease and the signs of planners that stand by."""
    try:
        raw = await last_raw(bus, bus.subjects.lease())
        signs = await all_messages(bus, bus.subjects.standby())
    except BusError as error:
        unread["lease"] = _reason(bus, ("decision", "power"), error)
        return
    if raw is not None:
        found = standing(sequence_of(raw), raw.headers or {}, raw.data)
        view.lease_flaw = "" if found.free or found.expires else found.flaw_text()
        if found.lease is not None and not view.lease_flaw:
            view.add(found.lease)
    for sign in signs:
        if isinstance(sign.message, v1.Lease):
            view.standby[sign.message.holder] = sign.message


async def _claims(bus: Bus, view: SiteView, unread: dict[str, str]) -> None:
    """Add who scales each deployment that is known."""
    try:
        found = await claims(bus)
    except BusError as error:
        unread["claim"] = _reason(bus, ("ack", "scaling"), error)
        return
    for deployment, claim in found.items():
        if deployment in view.deployments:
            view.claimed(deployment, claim)


def _reports(
    found: Mapping[tuple[str, str], Iterable[StoredMessage]], kind: tuple[str, str], now: datetime
) -> dict[str, NewestReport]:
    reports = {}
    for stored in found.get(kind, ()):
        who = getattr(stored.message, "node", "") or getattr(stored.message, "deployment", "")
        at = stored.stored_at
        if at is not None:
            ahead_s = (stored.message.time - at).total_seconds()
            reports[who] = NewestReport(max(0.0, (now - at).total_seconds()), ahead_s)
    return reports


async def _changes(bus: Bus, replicas: int | None) -> tuple[stream_admin.StreamChange, ...]:
    changes = await stream_admin.plan(bus, replicas)
    copies = "num_replicas " if replicas is None else "\n"
    return tuple(one for one in changes if not one.what.startswith(copies))


async def _put_back(bus: Bus) -> tuple[str, ...]:
    return tuple(await put_back(bus))


async def _boots(bus: Bus, now: datetime, nodes: int) -> dict[str, tuple[str, ...]]:
    """By node, the starts of agents behind the reports of the last seconds, oldest first."""
    try:
        last_sequence = int((await stream_info(bus, TELEMETRY)).get("state", {}).get("last_seq", 0))
        after = max(0, last_sequence - min(MOST_REPORTS, REPORTS_PER_NODE * max(1, nodes)))
        found = await all_messages(bus, bus.subjects.all_of("telemetry", "node"), after)
    except BusError:
        return {}
    boots: dict[str, tuple[str, ...]] = {}
    for stored in found:
        message, at = stored.message, stored.stored_at
        if isinstance(message, v1.NodeTelemetry) and at is not None and (now - at).total_seconds() <= RECENT_S:
            boots[message.node] = (*boots.get(message.node, ()), message.boot)
    return boots


def _removed(commands: Iterable[StoredMessage], telemetry: Iterable[StoredMessage]) -> frozenset[str]:
    """Nodes whose removal by an operator is newer than their last report."""
    seen = {one.message.node: one.message.time for one in telemetry if isinstance(one.message, v1.NodeTelemetry)}
    return frozenset(
        one.message.node
        for one in commands
        if isinstance(one.message, v1.NodeControl)
        and one.message.action == "remove"
        and (one.message.node not in seen or seen[one.message.node] < one.message.time)
    )


async def _consumers(bus: Bus, deployments: Iterable[str]) -> dict[str, ConsumerUse | None]:
    return {name: await _consumer(bus, scaling_consumer(name)) for name in deployments}


async def _consumer(bus: Bus, durable: str) -> ConsumerUse | None:
    value = answer(await ask(bus, f"$JS.API.CONSUMER.INFO.{DECISIONS}.{durable}"))
    if (problem := error_of(value)) is not None:
        if problem.code == CONSUMER_NOT_FOUND:
            return None
        raise BusError(f"consumer {durable}: {problem.text}")
    delivered = int(value.get("delivered", {}).get("consumer_seq", 0))
    return ConsumerUse(int(value.get("num_waiting", 0)), delivered, int(value.get("num_ack_pending", 0)))
