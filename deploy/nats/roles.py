"""Who may do what on the bus: four roles, and the accounts that keep them apart. Pure values.

Planners live in the bus's own account, beside the streams. Everyone else lives in another one and reaches the bus by
service imports only: in a shared account permissions are not enough, for the server answers an API request to ANY
reply subject with its own rights, so that a harmless question could have its answer stored as a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bus_schemas.streams import ACKS, CONTROL, DEADLETTER, DECISIONS, KV_STREAM, TELEMETRY
from bus_schemas.subjects import Subjects, power_consumer, scaling_consumer

BUS_ACCOUNT = "WATTSCALE"
FIELD_ACCOUNT = "WATTSCALE_FIELD"
VIEW_ACCOUNT = "WATTSCALE_VIEW"
SYSTEM_ACCOUNT = "SYS"

_STREAMS = (DECISIONS, ACKS, CONTROL, TELEMETRY, DEADLETTER, KV_STREAM)
_NEXT = f"$JS.API.CONSUMER.MSG.NEXT.{DECISIONS}"
_ACK = f"$JS.ACK.{DECISIONS}"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish and subscribe to; all others are refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    def conf(self) -> dict[str, Any]:
        """As a server's configuration says it."""
        return {"publish": {"allow": list(self.publish)}, "subscribe": {"allow": list(self.subscribe)}}


def inbox_prefix(role: str, name: str = "") -> str:
    """Where a user's answers come to: its own, so that nobody reads another's. To be set in its BusSettings."""
    return f"_INBOX_{role}" + (f"_{name.replace('.', '_')}" if name else "")


def planner(subjects: Subjects) -> Permissions:
    """Writes decisions, the lease, plan records; makes streams and consumers; deletes nothing."""
    root = subjects.root
    api = [f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE", "INFO") for stream in _STREAMS]
    api += [f"$JS.API.CONSUMER.{verb}.{stream}.>" for verb in ("CREATE", "INFO") for stream in _STREAMS]
    api += [f"$JS.API.CONSUMER.NAMES.{stream}" for stream in _STREAMS]
    api += [f"$JS.API.DIRECT.GET.{stream}{tail}" for stream in _STREAMS for tail in ("", ".>")]
    written = (f"{root}.decision.>", f"{root}.lease.>", f"{root}.telemetry.plan.*")
    read = (f"{inbox_prefix('planner')}.>", subjects.stored(f"{root}.>"))
    return Permissions((*written, "$JS.API.INFO", *api), read)


def agent(subjects: Subjects, node: str) -> Permissions:
    """Its own node only: takes its decisions, acknowledges, reports."""
    consumer = power_consumer(node)
    mine = (subjects.ack_power(node), subjects.telemetry_node(node), subjects.deadletter(DECISIONS, consumer))
    api = (f"{_NEXT}.{consumer}", f"{_ACK}.{consumer}.>", f"$JS.API.DIRECT.GET.{ACKS}.{subjects.ack_power(node)}")
    return Permissions((*mine, *api), (f"{inbox_prefix('agent', node)}.>",))


def connector(subjects: Subjects, name: str, deployments: tuple[str, ...]) -> Permissions:
    """Its own deployments only: by the client (direct get), or by a durable consumer."""
    publish: list[str] = []
    subscribe = [f"{inbox_prefix('connector', name)}.>"]
    for deployment in deployments:
        consumer, decisions = scaling_consumer(deployment), subjects.decision_scaling(deployment)
        acks = subjects.ack_scaling(deployment)
        publish += [acks, subjects.deadletter(DECISIONS, consumer), f"{_NEXT}.{consumer}", f"{_ACK}.{consumer}.>"]
        publish += [f"$JS.API.DIRECT.GET.{DECISIONS}.{decisions}", f"$JS.API.DIRECT.GET.{ACKS}.{acks}"]
        subscribe.append(subjects.stored(decisions))
    return Permissions(tuple(publish), tuple(subscribe))


def observer(subjects: Subjects) -> Permissions:
    """Reads all, writes nothing, creates nothing."""
    api = [f"$JS.API.DIRECT.GET.{stream}{tail}" for stream in _STREAMS for tail in ("", ".>")]
    api += [f"$JS.API.STREAM.INFO.{stream}" for stream in _STREAMS]
    root = subjects.root
    return Permissions(tuple(api), (f"{inbox_prefix('observer')}.>", f"{root}.>", subjects.stored(f"{root}.>")))


def operator(subjects: Subjects) -> Permissions:
    """An observer who may also speak on the control subjects: budgets, pauses, pins, nodes that are gone."""
    seen = observer(subjects)
    inbox = f"{inbox_prefix('operator')}.>"
    return Permissions((*seen.publish, f"{subjects.root}.control.>"), (inbox, *seen.subscribe[1:]))


@dataclass(frozen=True, slots=True)
class Services:
    """What the bus's account offers to another one."""

    single: tuple[str, ...]
    """Services with one answer."""
    many: tuple[str, ...] = ()
    """Services with a stream of answers."""
    heard: tuple[str, ...] = ()
    """Subjects that may be listened to."""


def field_services(subjects: Subjects) -> Services:
    """For agents and connectors."""
    root = subjects.root
    single = [f"{root}.ack.power.*", f"{root}.ack.scaling.*", f"{root}.telemetry.node.*"]
    single += [f"{root}.deadletter.{DECISIONS}.*", f"{_ACK}.>"]
    single += [f"$JS.API.DIRECT.GET.{DECISIONS}.{root}.decision.scaling.*"]
    single += [f"$JS.API.DIRECT.GET.{ACKS}.{root}.ack.*.*"]
    return Services(tuple(single), (f"{_NEXT}.*",), (subjects.stored(f"{root}.decision.scaling.*"),))


def view_services(subjects: Subjects) -> Services:
    """For observers and operators."""
    root = subjects.root
    many = [f"$JS.API.DIRECT.GET.{stream}{tail}" for stream in _STREAMS for tail in ("", ".>")]
    single = [f"$JS.API.STREAM.INFO.{stream}" for stream in _STREAMS] + [f"{root}.control.>"]
    # What is stored is heard below `stored.`; the subjects themselves would be a service and a stream at once.
    heard = [f"{root}.{kind}.>" for kind in ("decision", "ack", "telemetry", "lease", "deadletter")]
    return Services(tuple(single), tuple(many), (*heard, subjects.stored(f"{root}.>")))


User = Mapping[str, Any]
"""How a user shows who it is, in the server's words: ``{"user": .., "password": ..}``, ``{"nkey": ..}`` or, with
client certificates, ``{"user": <subject of the certificate>}``."""


@dataclass(frozen=True, slots=True)
class SiteAccounts:
    """Everyone on one installation's bus."""

    planners: tuple[User, ...] = ()
    operators: tuple[User, ...] = ()
    observers: tuple[User, ...] = ()
    agents: Mapping[str, User] = field(default_factory=dict)
    """By node."""
    connectors: Mapping[str, tuple[User, tuple[str, ...]]] = field(default_factory=dict)
    """By name: who, and for which deployments."""
    system: tuple[User, ...] = ()


def accounts(subjects: Subjects, site: SiteAccounts) -> dict[str, Any]:
    """The ``accounts`` and ``system_account`` of a server's configuration."""

    def users(permissions: Permissions, members: tuple[User, ...]) -> list[dict[str, Any]]:
        return [{**member, "permissions": permissions.conf()} for member in members]

    agents = [u for node, who in site.agents.items() for u in users(agent(subjects, node), (who,))]
    connectors = [
        u for name, (who, names) in site.connectors.items() for u in users(connector(subjects, name, names), (who,))
    ]
    watching = users(observer(subjects), site.observers) + users(operator(subjects), site.operators)
    offered = {FIELD_ACCOUNT: field_services(subjects), VIEW_ACCOUNT: view_services(subjects)}
    return {
        "system_account": SYSTEM_ACCOUNT,
        "accounts": {
            BUS_ACCOUNT: {
                "jetstream": "enabled",
                "users": users(planner(subjects), site.planners),
                "exports": _exports(offered),
            },
            FIELD_ACCOUNT: {"users": agents + connectors, "imports": _imports(offered[FIELD_ACCOUNT])},
            VIEW_ACCOUNT: {"users": watching, "imports": _imports(offered[VIEW_ACCOUNT])},
            SYSTEM_ACCOUNT: {"users": list(site.system)},
        },
    }


def _exports(offered: Mapping[str, Services]) -> list[dict[str, Any]]:
    """Each subject once, with all accounts that may import it."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for account, services in offered.items():
        for subject in services.single:
            found.setdefault(("service", subject, "singleton"), []).append(account)
        for subject in services.many:
            found.setdefault(("service", subject, "stream"), []).append(account)
        for subject in services.heard:
            found.setdefault(("stream", subject, ""), []).append(account)
    return [
        {kind: subject, **({"response_type": answers} if answers else {}), "accounts": allowed}
        for (kind, subject, answers), allowed in found.items()
    ]


def _imports(services: Services) -> list[dict[str, Any]]:
    made = [{"service": {"account": BUS_ACCOUNT, "subject": one}} for one in (*services.single, *services.many)]
    return made + [{"stream": {"account": BUS_ACCOUNT, "subject": one}} for one in services.heard]
