"""What the page shows, as a document of small parts: each is sent again when it changed. Pure; time is an argument.

The parts, by key: ``overview``, ``answers``, ``odd``, ``site/NAME``, ``deployment/NAME``, ``node/NAME`` (what seldom
changes), ``lease/NAME`` (its decisions) and ``draw/NAME`` (when the node reported, and the watts of each GPU). A part
that is None is gone. Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from bus_schemas import v1
from bus_schemas.visible_text import visible_parts
from deploy.dashboard.fleet_reader import turn_s
from deploy.dashboard.points import deployment_point, site_point
from deploy.dashboard.questions import answers, held, watts_line
from deploy.dashboard.timeline import TimelineEvent, event_of, milliseconds
from deploy.views.budgets import CommandState, command_words, planned, states
from deploy.views.freshness import leader, missed_targets, problems, silent
from deploy.views.live_view import figure, rate
from deploy.views.odd_gpus import OddGpu, odd_gpus
from deploy.views.site_view import DeploymentSummary, NodeSummary, SiteView
from deploy.views.status import hints, trouble

WATTS_WANTED = frozenset({"power_budget", "power_pending", "start_watts", "budget_cut", "shortfall", "brake"})
"""Reasons of a pool that waits for watts."""
SHORT_PAUSE = timedelta(seconds=0.5)
PARTS_PER_TURN = 3
NEVER = datetime.min.replace(tzinfo=UTC)
Parts = dict[str, Any]


@dataclass(slots=True)
class Changes:
    """What is new since the last call."""

    parts: Parts = field(default_factory=dict)
    events: list[TimelineEvent] = field(default_factory=list)
    points: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """By deployment, or by ``site/NAME``."""

    def __bool__(self) -> bool:
        return bool(self.parts or self.events or self.points)


class Document:
    """The parts of one bus, kept current by `add` and `changes`."""

    def __init__(self) -> None:
        self.picture = SiteView()
        self.parts: Parts = {}
        self.commands: list[v1.BudgetChange] = []
        self._nodes: set[str] = set()
        self._leases: set[str] = set()
        self._draining: set[str] = set()
        """Nodes with a worker that leaves."""
        self._deployments: set[str] = set()
        self._news = Changes()
        self._odd: list[OddGpu] = []
        self._odd_at = self._made_at = NEVER
        self._made_for: object = None

    def add(self, message: v1.Message, *, is_new: bool = True) -> None:
        """Take a message in; one that is not new stands neither in the timeline nor in a chart's news."""
        message = visible_parts(message)
        if isinstance(message, v1.PowerDecision | v1.PowerAck) and not self._covers_others(message):
            self._leases.add(message.node)
        elif isinstance(message, v1.NodeTelemetry | v1.PowerDecision | v1.PowerAck | v1.NodeControl):
            self._nodes.add(message.node)
        self.picture.add_visible(message)
        match message:
            case v1.NodeTelemetry():
                leaves = any(gpu.terminating for gpu in message.gpus)
                (self._draining.add if leaves else self._draining.discard)(message.node)
            case v1.PlanRecord():
                self._deployments.add(message.deployment)
                if is_new:
                    self._add_points(message)
            case v1.ScalingDecision() | v1.ScalingAck():
                self._deployments.add(message.deployment)
            case v1.BudgetChange():
                self.commands.append(message)
        if is_new and (event := event_of(message)) is not None:
            self._news.events.append(event)

    def _covers_others(self, message: v1.PowerDecision | v1.PowerAck) -> bool:
        """Whether with it more of a node is to be shown anew than its lease, which is renewed every few seconds."""
        known = self.picture.nodes.get(message.node)
        if known is None:
            return True
        if isinstance(message, v1.PowerAck):
            return False
        return known.decision is None or covered_by(known.decision) != covered_by(message)

    def knows(self, decision: v1.ScalingDecision | v1.PowerDecision) -> bool:
        """Whether it was added, or a later one of its numbering."""
        newest: v1.ScalingDecision | v1.PowerDecision | None
        if isinstance(decision, v1.PowerDecision):
            node = self.picture.nodes.get(decision.node)
            newest = None if node is None else node.decision
        else:
            view = self.picture.deployments.get(decision.deployment)
            newest = None if view is None else view.decision
        return (
            newest is not None
            and newest.incarnation == decision.incarnation
            and newest.decision_id >= decision.decision_id
        )

    def replace_commands(self, commands: Sequence[v1.BudgetChange]) -> None:
        """Know exactly these budget commands, oldest first."""
        self.commands[:] = [visible_parts(command) for command in commands]

    def add_past(self, past: Sequence[TimelineEvent]) -> None:
        """Put lines of before into the timeline."""
        self._news.events[:0] = past

    def _add_points(self, record: v1.PlanRecord) -> None:
        point = deployment_point(record, self.gpus_per_replica(record.deployment))
        self._news.points.setdefault(record.deployment, []).append(point)
        if record.site:
            self._news.points.setdefault(f"site/{record.site}", []).append(site_point(record))

    def gpus_per_replica(self, deployment: str) -> Mapping[str, int]:
        """By pool, from the deployment's newest decision."""
        view = self.picture.deployments.get(deployment)
        pools = view.decision.pools if view is not None and view.decision is not None else {}
        return {name: target.gpus_per_replica for name, target in pools.items()}

    def changes(self, now: datetime, *, bus: Mapping[str, Any]) -> Changes:
        """What changed since the last call. ``bus``: how the connection to it is, as the page shows it."""
        found, self._news = self._news, Changes()
        fresh: Parts = self._of_all(now, bus) if self._is_due(now, bus) else {}
        for name in self._nodes:
            fresh |= node_parts(name, self.picture.nodes.get(name))
        for name in self._leases - self._nodes:
            if (node := self.picture.nodes.get(name)) is not None:
                fresh[f"lease/{name}"] = lease_part(node)
        leaving = draining(self.picture, self._draining) if self._deployments else {}
        for name in self._deployments:
            fresh[f"deployment/{name}"] = deployment_part(self.picture, name, leaving)
        self._nodes.clear()
        self._leases.clear()
        self._deployments.clear()
        for key, value in fresh.items():
            if self.parts.get(key) == value:
                continue
            found.parts[key] = value
            if value is None:
                del self.parts[key]
            else:
                self.parts[key] = value
        return found

    def _is_due(self, now: datetime, bus: Mapping[str, Any]) -> bool:
        """Whether the parts about all nodes are to be made anew: in each update, or of a large site a few times in each
        turn of its nodes, and at once where a command came or the bus changed.
        """
        pause = timedelta(seconds=turn_s(len(self.picture.nodes)) / PARTS_PER_TURN)
        since, asked = now - self._made_at, (len(self.commands), dict(bus))
        if pause >= SHORT_PAUSE and timedelta() <= since < pause and asked == self._made_for:
            return False
        self._made_at, self._made_for = now, asked
        return True

    def _of_all(self, now: datetime, bus: Mapping[str, Any]) -> Parts:
        """The parts about the whole site; while the streams are still read, only that they are.

        Of what was not read yet nothing is known: neither that nobody leads nor that there is no site may be said.
        """
        if not bus["read"]:
            return {"overview": {"bus": dict(bus)}}
        odd = self._odd_now(now)
        fresh: Parts = {
            "overview": overview(self.picture, now, bus),
            "answers": {name: one.as_json() for name, one in answers(self.picture, odd).items()},
            "odd": {one.gpu: one.why for one in odd},
        }
        for site in self.picture.sites():
            fresh[f"site/{site}"] = site_part(self.picture, site, self.commands, now)
        return fresh

    def _odd_now(self, now: datetime) -> list[OddGpu]:
        """The odd GPUs, which are compared with all others: no more often than all of them are read."""
        turn, since = timedelta(seconds=turn_s(len(self.picture.nodes))), now - self._odd_at
        if turn < SHORT_PAUSE or not timedelta() <= since < turn:
            self._odd, self._odd_at = odd_gpus(self.picture), now
        return self._odd


def overview(picture: SiteView, now: datetime, bus: Mapping[str, Any]) -> Parts:
    """Who leads and who stands by, what is not well, and which nodes are silent."""
    lease, quiet = picture.lease, silent(picture, now)
    standing_by = [
        {"name": name, "until": milliseconds(sign.time + timedelta(seconds=sign.ttl_s))}
        for name, sign in sorted(picture.standby.items())
        if lease is None or name != lease.holder
    ]
    return {
        "bus": dict(bus),
        "leader": leader(picture, now),
        "lease_until": milliseconds(lease.time + timedelta(seconds=lease.ttl_s)) if lease is not None else None,
        "standby": standing_by,
        "problems": problems(picture, now, quiet),
        "missed_targets": missed_targets(picture),
        "hints": hints(picture),
        "silent": quiet,
    }


def site_part(picture: SiteView, site: str, commands: Sequence[v1.BudgetChange], now: datetime) -> Parts:
    """A site's watts, and the budget commands that are open, with what they will make of the budget."""
    known = picture.budget_of(site)
    own = [command for command in commands if command.site == site]
    shown = [
        (command, CommandState.PENDING if state is CommandState.IN_FORCE and not planned(command, known) else state)
        for command, state in zip(own, states(own, now), strict=True)
        if state is not CommandState.OVER
    ]
    return {
        "budget": None if known is None else round(known[0], 1),
        "caps": round(picture.enforced_of(site)),
        "drawn": round(picture.drawn_of(site)),
        "held": held(picture, site),
        "line": watts_line(picture, site),
        "commands": [_command(command, state) for command, state in shown],
    }


def _command(command: v1.BudgetChange, state: CommandState) -> Parts:
    begins = command.effective_from or command.time
    return {
        "state": str(state),
        "text": command_words(command),
        "watts": None if command.release else command.budget_watts,
        "from": milliseconds(begins),
        "ramp_s": command.ramp_s,
        "until": milliseconds(command.effective_until) if command.effective_until else None,
    }


def deployment_part(picture: SiteView, name: str, leaving: Mapping[tuple[str, str], int]) -> Parts:
    """A deployment's newest tick: figures against targets, and pools. ``leaving``: see `draining`."""
    view = picture.deployments[name]
    record = view.record
    return {
        "site": record.site if record else "",
        "tick": milliseconds(record.time) if record else None,
        "decision": view.decision_id,
        "carried_out": view.scaled_decision_id,
        "trouble": trouble(view),
        "load": rate(record),
        "ttft": _latency(record, "ttft_ms"),
        "itl": _latency(record, "itl_ms"),
        "targets": {key: value for key, value in record.targets.items() if key.endswith("_ms")} if record else {},
        "pools": list(_pools(view, name, leaving)),
        **({"class": record.service_class} if record and record.service_class is not None else {}),
    }


def _latency(record: v1.PlanRecord | None, name: str) -> Parts:
    value, target = (record.observed.get(name), record.targets.get(name)) if record else (None, None)
    missed = value is not None and target is not None and value > target
    return {"text": figure(record, name, "ms"), "missed": missed}


def _pools(view: DeploymentSummary, name: str, leaving: Mapping[tuple[str, str], int]) -> Iterator[Parts]:
    record, ack = view.record, view.ack
    for pool_name, pool in record.pools.items() if record else ():
        target = view.decision.pools.get(pool_name) if view.decision else None
        granted = target.replicas if target is not None else pool.granted
        progress = ack.pools.get(pool_name) if ack else None
        ready = progress.ready if progress else ack.replicas.get(pool_name, pool.current) if ack else pool.current
        yield {
            "name": pool_name,
            "role": pool.role,
            "desired": pool.wanted,
            "granted": granted,
            "ready": ready,
            "starting": max(0, granted - ready),
            "draining": leaving.get((name, pool_name), 0),
            "cap": None if pool.cap_watts is None else round(pool.cap_watts),
            "waits_for_watts": [r.text or r.code for r in pool.chain if r.code in WATTS_WANTED],
            "reason": f"{pool.chain[-1].code}: {pool.chain[-1].text}" if pool.chain else "",
        }


def draining(picture: SiteView, nodes: Iterable[str]) -> Mapping[tuple[str, str], int]:
    """Workers on these nodes whose pods end, by deployment and pool, from the telemetry of their GPUs."""
    leaving: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for name in nodes:
        node = picture.nodes.get(name)
        for gpu in node.telemetry.gpus if node is not None and node.telemetry else ():
            if gpu.terminating:
                leaving.setdefault((gpu.deployment, gpu.pool), set()).add((name, gpu.pod or gpu.worker or gpu.gpu))
    return {key: len(workers) for key, workers in leaving.items()}


def covered_by(decision: v1.PowerDecision) -> tuple[object, ...]:
    """What of a decision stands in its node's part: the site, and the GPUs that its budget does not cover."""
    return decision.site, decision.outside_gpus, decision.released_gpus


def node_parts(name: str, node: NodeSummary | None) -> Parts:
    """A node's parts by their keys; None each for a node that left."""
    if node is None:
        return dict.fromkeys((f"node/{name}", f"lease/{name}", f"draw/{name}"))
    return {f"node/{name}": node_part(node), f"lease/{name}": lease_part(node), f"draw/{name}": draw_part(node)}


def node_part(node: NodeSummary) -> Parts:
    """A node's GPUs but for their draw."""
    outside, gpus = node.outside, node.telemetry.gpus if node.telemetry else ()
    return {"site": node.site, "gpus": tuple([_gpu(gpu, covered=gpu.gpu not in outside) for gpu in gpus])}


def lease_part(node: NodeSummary) -> Parts:
    """The lease of a node's caps, and how far its newest decision is carried out: apart, because leases are renewed
    every few seconds. ``lapses``: whether its end would lower a cap; where all are at their fallback nobody renews it.
    """
    decision, report = node.decision, node.telemetry
    applied = max(node.ack.applied_decision_id if node.ack else -1, report.applied_decision_id if report else -1)
    return {
        "decision": decision.decision_id if decision else -1,
        "applied": applied,
        "renewed": milliseconds(decision.time) if decision else None,
        "lease_s": decision.valid_for_s if decision else None,
        "lapses": decision is not None and any(cap.cap_watts > cap.fallback_watts for cap in decision.caps),
        "waits": decision is not None and applied < decision.decision_id,
    }


def _gpu(gpu: v1.GpuTelemetry, *, covered: bool) -> tuple[Any, ...]:
    """Id, index, model, cap, maximum, deployment, pool, role, pod, health, whether the budget covers it.

    A tuple, because there are thousands, and the garbage collector leaves those of plain values alone.
    """
    cap = None if gpu.enforced_watts is None else round(gpu.enforced_watts)
    health = str(gpu.health) + (f": {gpu.error}" if gpu.error else "")
    pod = gpu.pod or gpu.worker
    place = (gpu.gpu, gpu.index, gpu.model, cap, round(gpu.max_watts), gpu.deployment, gpu.pool, gpu.role, pod, health)
    return (*place, covered)


def draw_part(node: NodeSummary) -> tuple[int | None, ...]:
    """When the node was seen, in seconds since 1970, and then the watts of each GPU as its part has them in order."""
    seen = node.seen
    gpus = node.telemetry.gpus if node.telemetry else ()
    draws = [None if gpu.draw_watts is None else round(gpu.draw_watts) for gpu in gpus]
    return (None if seen is None else round(seen.timestamp()), *draws)
