"""Permissions on the bus by role, and the accounts that keep the roles apart. Pure values.

Planners are in the account of the bus, with the streams. All others are in other accounts and reach the bus through
service imports only. Permissions within one account are not enough: the server replies to an API request on any reply
subject with its own rights, so the reply to a harmless request could be stored as a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bus_schemas.streams import ACKS, CONTROL, DEADLETTER, DECISIONS, KIB, KV_STREAM, PLANS, TELEMETRY
from bus_schemas.subjects import Subjects, power_consumer, scaling_consumer

BUS_ACCOUNT = "WATTSCALE"
FIELD_ACCOUNT = "WATTSCALE_FIELD"
VIEW_ACCOUNT = "WATTSCALE_VIEW"
SYSTEM_ACCOUNT = "SYS"

_STREAMS = (DECISIONS, ACKS, CONTROL, TELEMETRY, PLANS, DEADLETTER, KV_STREAM)
MESSAGE_BYTES = 160 * KIB
"""The most that an agent, connector, operator or observer may send at once: a dead letter with its headers. The server
cuts off who sends more. Each stream has a limit of its own below it; planners have the server's (1 MiB)."""
_NEXT = f"$JS.API.CONSUMER.MSG.NEXT.{DECISIONS}"
_ACK = f"$JS.ACK.{DECISIONS}"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish and subscribe to; all others are refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]

    def conf(self) -> dict[str, Any]:
        """As a section of a server's configuration."""
        return {"publish": {"allow": list(self.publish)}, "subscribe": {"allow": list(self.subscribe)}}


def inbox_prefix(role: str, name: str = "") -> str:
    """The prefix of the subjects of a user's replies, which no other user may read. Belongs in its BusSettings."""
    return f"_INBOX_{role}" + (f"_{name.replace('.', '_')}" if name else "")


def planner(subjects: Subjects) -> Permissions:
    """A planner: writes decisions, the lease and plan records; creates streams and consumers; deletes nothing.

    It may read all that its account holds: each stream by name would make a JWT of it longer than the 4 KiB that a
    server takes as one line of the protocol.
    """
    root = subjects.root
    api = [f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE") for stream in _STREAMS]
    api += [f"$JS.API.CONSUMER.CREATE.{stream}.>" for stream in _STREAMS]
    api += ["$JS.API.STREAM.INFO.*", "$JS.API.CONSUMER.INFO.>", "$JS.API.CONSUMER.NAMES.*", "$JS.API.DIRECT.GET.>"]
    written = (f"{root}.decision.>", f"{root}.lease.>", f"{root}.telemetry.plan.*")
    read = (f"{inbox_prefix('planner')}.>", subjects.stored(f"{root}.>"))
    return Permissions((*written, "$JS.API.INFO", *api), read)


def agent(subjects: Subjects, node: str) -> Permissions:
    """An agent, for its own node only: receives decisions, acknowledges, publishes telemetry."""
    consumer = power_consumer(node)
    mine = (subjects.ack_power(node), subjects.telemetry_node(node), subjects.deadletter(DECISIONS, consumer))
    api = (f"{_NEXT}.{consumer}", f"{_ACK}.{consumer}.>", f"$JS.API.DIRECT.GET.{ACKS}.{subjects.ack_power(node)}")
    return Permissions((*mine, *api), (f"{inbox_prefix('agent', node)}.>",))


def connector(subjects: Subjects, name: str, deployments: tuple[str, ...]) -> Permissions:
    """A connector, for its own deployments only: by the client (direct get) or by a durable consumer."""
    publish: list[str] = []
    subscribe = [f"{inbox_prefix('connector', name)}.>"]
    for deployment in deployments:
        consumer, decisions = scaling_consumer(deployment), subjects.decision_scaling(deployment)
        acks = subjects.ack_scaling(deployment)
        publish += [acks, subjects.deadletter(DECISIONS, consumer), f"{_NEXT}.{consumer}", f"{_ACK}.{consumer}.>"]
        publish += [f"$JS.API.DIRECT.GET.{DECISIONS}.{decisions}", f"$JS.API.DIRECT.GET.{ACKS}.{acks}"]
        subscribe.append(subjects.stored(decisions))
        claim = subjects.claim_deployment(deployment)
        publish += [claim, f"$JS.API.DIRECT.GET.{ACKS}.{claim}"]
        # The power limits that are planned for its pods, and commands to restart its graph.
        for stream, read in ((PLANS, subjects.telemetry_plan), (CONTROL, subjects.control_deployment)):
            publish.append(f"$JS.API.DIRECT.GET.{stream}.{read(deployment)}")
            subscribe.append(subjects.stored(read(deployment)))
    # Whether the GPUs of workers that left are idle.
    subscribe.append(subjects.stored(f"{subjects.root}.telemetry.node.*"))
    # A target's subject is a digest: which targets a deployment has is not known here.
    publish += [f"{subjects.root}.claim.target.*", f"$JS.API.DIRECT.GET.{ACKS}.{subjects.root}.claim.target.*"]
    return Permissions(tuple(publish), tuple(subscribe))


def observer(subjects: Subjects) -> Permissions:
    """An observer: reads everything, writes and creates nothing."""
    api = [f"$JS.API.DIRECT.GET.{stream}{tail}" for stream in _STREAMS for tail in ("", ".>")]
    # The API's own subject is asked first; for an account without JetStream the server answers it with a refusal.
    api += [one for stream in _STREAMS for one in (f"$JS.API.STREAM.INFO.{stream}", subjects.stream_info(stream))]
    root = subjects.root
    return Permissions(tuple(api), (f"{inbox_prefix('observer')}.>", f"{root}.>", subjects.stored(f"{root}.>")))


def operator(subjects: Subjects) -> Permissions:
    """An observer that may also send commands: budgets, pauses, pins, nodes that are gone."""
    seen = observer(subjects)
    inbox = f"{inbox_prefix('operator')}.>"
    return Permissions((*seen.publish, f"{subjects.root}.control.>"), (inbox, *seen.subscribe[1:]))


def pinner(subjects: Subjects, name: str, deployments: tuple[str, ...]) -> Permissions:
    """A virtual connector with ``--direction from-dynamo``: commands its own deployments, and no node and no budget.

    It reads commands (which of its pins is the newest) and what became of its own deployments' pins.
    """
    publish = [f"$JS.API.DIRECT.GET.{CONTROL}"]
    subscribe = [f"{inbox_prefix('pinner', name)}.>"]
    for deployment in deployments:
        control, plans = subjects.control_deployment(deployment), subjects.telemetry_plan(deployment)
        decisions, acks = subjects.decision_scaling(deployment), subjects.ack_scaling(deployment)
        read = ((PLANS, plans), (DECISIONS, decisions), (ACKS, acks))
        publish += [control, *(f"$JS.API.DIRECT.GET.{stream}.{subject}" for stream, subject in read)]
        subscribe += [subjects.stored(subject) for subject in (control, plans, acks)]
    return Permissions(tuple(publish), tuple(subscribe))


@dataclass(frozen=True, slots=True)
class Services:
    """The services and subjects that the bus's account exports to another account."""

    single: tuple[str, ...]
    """Services with one reply per request."""
    many: tuple[str, ...] = ()
    """Services with a stream of replies."""
    subscribed: tuple[str, ...] = ()
    """Subjects to which the account may subscribe."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Services with one reply per request that the account has under another subject, by their own subject."""


def field_services(subjects: Subjects) -> Services:
    """Exports for agents and connectors."""
    root = subjects.root
    single = [f"{root}.ack.power.*", f"{root}.ack.scaling.*", f"{root}.telemetry.node.*"]
    single += [f"{root}.claim.deployment.*", f"{root}.claim.target.*"]
    single += [f"{root}.deadletter.{DECISIONS}.*", f"{_ACK}.>"]
    single += [f"$JS.API.DIRECT.GET.{DECISIONS}.{root}.decision.scaling.*"]
    single += [f"$JS.API.DIRECT.GET.{PLANS}.{root}.telemetry.plan.*"]
    single += [f"$JS.API.DIRECT.GET.{CONTROL}.{root}.control.deployment.*"]
    single += [f"$JS.API.DIRECT.GET.{ACKS}.{root}.{kind}.*.*" for kind in ("ack", "claim")]
    read = tuple(
        subjects.stored(f"{root}.{kind}.*")
        for kind in ("decision.scaling", "telemetry.node", "telemetry.plan", "control.deployment")
    )
    return Services(tuple(single), (f"{_NEXT}.*",), read)


def view_services(subjects: Subjects) -> Services:
    """Exports for observers and operators."""
    root = subjects.root
    many = [f"$JS.API.DIRECT.GET.{stream}{tail}" for stream in _STREAMS for tail in ("", ".>")]
    single = [f"{root}.control.>"]
    renamed = {f"$JS.API.STREAM.INFO.{stream}": subjects.stream_info(stream) for stream in _STREAMS}
    # Stored control messages are read below `stored.`: their own subjects would be a service and a stream at once.
    subscribed = [f"{root}.{kind}.>" for kind in ("decision", "ack", "claim", "telemetry", "lease", "deadletter")]
    return Services(tuple(single), tuple(many), (*subscribed, subjects.stored(f"{root}.>")), renamed)


User = Mapping[str, Any]
"""A user's credentials as in the server's configuration: ``{"user": .., "password": ..}``, ``{"nkey": ..}`` or, with
client certificates, ``{"user": <subject of the certificate>}``."""


@dataclass(frozen=True, slots=True)
class SiteAccounts:
    """The users of one installation's bus."""

    planners: tuple[User, ...] = ()
    operators: tuple[User, ...] = ()
    observers: tuple[User, ...] = ()
    agents: Mapping[str, User] = field(default_factory=dict)
    """By node."""
    connectors: Mapping[str, tuple[User, tuple[str, ...]]] = field(default_factory=dict)
    """By name: the user and its deployments."""
    system: tuple[User, ...] = ()
    pinners: Mapping[str, tuple[User, tuple[str, ...]]] = field(default_factory=dict)
    """As connectors: those that turn another planner's decisions into pins."""


def accounts(subjects: Subjects, site: SiteAccounts) -> dict[str, Any]:
    """The ``accounts`` and ``system_account`` of a server's configuration."""

    def users(permissions: Permissions, members: tuple[User, ...]) -> list[dict[str, Any]]:
        return [{**member, "permissions": permissions.conf()} for member in members]

    agents = [u for node, who in site.agents.items() for u in users(agent(subjects, node), (who,))]
    connectors = [
        u for name, (who, names) in site.connectors.items() for u in users(connector(subjects, name, names), (who,))
    ]
    watching = users(observer(subjects), site.observers) + users(operator(subjects), site.operators)
    watching += [u for name, (who, names) in site.pinners.items() for u in users(pinner(subjects, name, names), (who,))]
    offered = {FIELD_ACCOUNT: field_services(subjects), VIEW_ACCOUNT: view_services(subjects)}
    return {
        "system_account": SYSTEM_ACCOUNT,
        "accounts": {
            BUS_ACCOUNT: {
                "jetstream": "enabled",
                "users": users(planner(subjects), site.planners),
                "exports": _exports(offered),
            },
            FIELD_ACCOUNT: {"users": agents + connectors, "imports": _imports(offered[FIELD_ACCOUNT]), **_LIMITED},
            VIEW_ACCOUNT: {"users": watching, "imports": _imports(offered[VIEW_ACCOUNT]), **_LIMITED},
            SYSTEM_ACCOUNT: {"users": list(site.system)},
        },
    }


_LIMITED = {"limits": {"max_payload": MESSAGE_BYTES}}


def _exports(offered: Mapping[str, Services]) -> list[dict[str, Any]]:
    """Each exported subject once, with all accounts that may import it."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for account, services in offered.items():
        for subject in (*services.single, *services.renamed):
            found.setdefault(("service", subject, "singleton"), []).append(account)
        for subject in services.many:
            found.setdefault(("service", subject, "stream"), []).append(account)
        for subject in services.subscribed:
            found.setdefault(("stream", subject, ""), []).append(account)
    return [
        {kind: subject, **({"response_type": answers} if answers else {}), "accounts": allowed}
        for (kind, subject, answers), allowed in found.items()
    ]


def _imports(services: Services) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [
        {"service": {"account": BUS_ACCOUNT, "subject": one}} for one in (*services.single, *services.many)
    ]
    made += [
        {"service": {"account": BUS_ACCOUNT, "subject": one}, "to": here} for one, here in services.renamed.items()
    ]
    return made + [{"stream": {"account": BUS_ACCOUNT, "subject": one}} for one in services.subscribed]
