"""The table: each event on each kind of target, with the acknowledgement and the Event that must come.

One process of the connector scales one deployment of each kind, so that an event costs one step for all of them. All
of it speaks only the API, to the double and to a real server; what can be done to a double alone is named as such.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from agent.adapters.kubernetes.access import Access
from agent.adapters.kubernetes.api import KubernetesApi
from tests.contract.kubernetes.api_server import RBAC, ApiServer, api_server, merge
from tests.contract.kubernetes.connector_site import ConnectorSite, connector_site
from tests.contract.kubernetes.operators.operated_pods import Fate
from tests.contract.kubernetes.target_kinds import (
    GRAPH_VERSIONS,
    WORKLOADS,
    TargetKind,
    all_kinds,
    is_served,
    rules_of,
    running,
)
from tests.doubles.cut_off import CutOff, cut_off
from tests.doubles.kubernetes import KubernetesDouble

pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")
pytestmark = pytest.mark.long
NO_ROOM = "0/4 nodes are available: insufficient nvidia.com/gpu"
NO_OBJECT = dict.fromkeys((*GRAPH_VERSIONS, *WORKLOADS), "there is no") | {
    "dgdsa-v1beta1": "no component with a scaling adapter has this name"
}
"""How a missing object is named: that kind finds its adapters by their graph."""
Row = Callable[["Table", TargetKind], Awaitable[None]]


@dataclass
class Table:
    """One site for all kinds. ``double``: the server where it is ours. ``relay``: in front of it."""

    site: ConnectorSite
    server: ApiServer
    double: KubernetesDouble | None
    relay: CutOff
    kinds: list[TargetKind]
    token: str
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @asynccontextmanager
    async def connector(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """The process for all kinds."""
        settings = {
            "deployments": {one.name: one.settings for one in self.kinds},
            "wait_for_capacity_s": 2,
            "log_level": "warning",
        }
        async with self.site.connector(self.token, settings=settings) as process:
            yield process

    async def each(self, row: Row) -> None:
        """One row of the table, for all kinds at once."""
        await asyncio.gather(*(row(self, kind) for kind in self.kinds))

    async def made(self) -> None:
        """All definitions and objects, run by their controllers until the end."""
        for kind in self.kinds:
            await kind.define()
            await kind.make()
        await self.stack.enter_async_context(running(self.kinds))


@asynccontextmanager
async def table(server: ApiServer, double: KubernetesDouble | None, folder: Path) -> AsyncIterator[Table]:
    kinds = all_kinds(server)
    found = urlsplit(server.api.access.server)
    port = found.port or 443
    async with (
        connector_site(server, folder, [kind.name for kind in kinds]) as site,
        cut_off(found.hostname or "", port) as relay,
        AsyncExitStack() as stack,
    ):
        site.api_url = f"{found.scheme}://127.0.0.1:{relay.port}"
        for kind in kinds:
            kind.site = site.of(kind.name)
        await server.define("keda.sh", "scaledobjects", "ScaledObject", "v1alpha1", scale=False)
        token = await server.account("c", *rules_of(kinds))
        yield Table(site, server, double, relay, kinds, token, stack)


@pytest.fixture(params=["double", "real"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Table]:
    if request.param == "double":
        async with (
            KubernetesDouble() as kube,
            KubernetesApi(Access(kube.url)) as api,
            table(ApiServer(api, "ns"), kube, tmp_path) as found,
        ):
            yield found
        return
    async with api_server("real") as server, table(server, None, tmp_path) as found:
        yield found


# Rows. Each begins and ends with every count in force.


async def missing(table: Table, kind: TargetKind) -> None:
    """Definition or object is not there yet."""
    collection = kind.pools["decode"].path.rpartition("/")[0]
    served = await is_served(table.server, collection)
    number = await kind.decide(decode=1)
    ack = await kind.site.problem(number, NO_OBJECT[kind.name] if served else "is not defined in version")
    assert (ack.retryable, ack.scaled_decision_id) == (True, -1)


async def grown(table: Table, kind: TargetKind) -> None:
    """Nothing special: the count is written, and acknowledged once all serve."""
    await kind.decided(decode=2)
    assert await kind.pools["decode"].wanted() == 2


async def conflict(table: Table, kind: TargetKind) -> None:
    """409: the object was changed since the connector saw it."""
    await kind.pools["decode"].touch(f"n{kind.number}")
    number = await kind.decide(decode=3)
    if table.double is not None:
        await kind.site.problem(number, "decode:", "was changed by another writer meanwhile")
        await kind.site.event(kind.pools["decode"].name, "was changed by another writer meanwhile")


async def foreign_edit(table: Table, kind: TargetKind) -> None:
    """A person sets a count: named, left alone, and over when the person sets ours."""
    decode = kind.pools["decode"]
    await decode.edit(5)
    words = "a person with kubectl-edit set 5 replicas"
    ack = await kind.site.problem(kind.number, words)
    assert (ack.status, ack.scaled_decision_id) == ("partial", kind.number)
    await kind.site.event(decode.name, words)
    number = await kind.decide(decode=2)
    await kind.site.problem(number, f"{words} where the decision has 2")
    assert await decode.wanted() == 5
    await decode.edit(2)
    await kind.site.done(number)


async def autoscaler(table: Table, kind: TargetKind, path: str, body: Mapping[str, object], what: str) -> None:
    decode = kind.pools["decode"]
    name = f"{table.server.mark}-{kind.name}"
    before = await decode.wanted()
    await table.server.make(path, {**body, "kind": what, "metadata": {"name": name}})
    await kind.site.problem(kind.number, f"{what} {name} scales the same target")
    await kind.site.event(decode.name, f"{what} {name} scales the same target")
    number = await kind.decide(decode=before + 1)
    await kind.site.problem(number, f"{what} {name} scales the same target")
    assert await decode.wanted() == before
    await table.server.api.send("DELETE", f"{path}/{name}")
    await kind.site.done(number)


async def hpa(table: Table, kind: TargetKind) -> None:
    """A HorizontalPodAutoscaler aims at the target."""
    spec = {"scaleTargetRef": kind.pools["decode"].reference, "minReplicas": 1, "maxReplicas": 3}
    path = table.server.path("autoscaling", "v2", "horizontalpodautoscalers")
    body = {"apiVersion": "autoscaling/v2", "spec": spec}
    await autoscaler(table, kind, path, body, "HorizontalPodAutoscaler")


async def keda(table: Table, kind: TargetKind) -> None:
    """A ScaledObject of KEDA's aims at the target."""
    spec = {"scaleTargetRef": kind.pools["decode"].reference, "triggers": []}
    path = table.server.path("keda.sh", "v1alpha1", "scaledobjects")
    await autoscaler(table, kind, path, {"apiVersion": "keda.sh/v1alpha1", "spec": spec}, "ScaledObject")


async def unschedulable(table: Table, kind: TargetKind) -> None:
    """No room: the scheduler's reason, then insufficient_capacity, and the count that was placed."""
    decode = kind.pools["decode"]
    before = await decode.wanted()
    decode.set_fate(Fate(unschedulable=NO_ROOM))
    number = await kind.decide(decode=before + 1)
    await kind.site.event(decode.name, NO_ROOM)
    ack = await kind.site.problem(number, "insufficient_capacity", NO_ROOM)
    assert (ack.status, ack.retryable, ack.scaled_decision_id) == ("failed", False, number - 1)
    await decode.wants(before)
    decode.set_fate(Fate())
    await kind.decided(decode=before)


async def crash_loop(table: Table, kind: TargetKind) -> None:
    """Pods of one role crash: named, and the other role goes on."""
    decode = kind.pools["decode"]
    decode.set_fate(Fate(crashing="CrashLoopBackOff"))
    number = await kind.decide(decode=kind.counts["decode"] + 1, prefill=kind.counts["prefill"] + 1)
    await kind.site.problem(number, "decode: pod", "CrashLoopBackOff after 3 restarts")
    await kind.site.event(decode.name, "CrashLoopBackOff after 3 restarts")
    prefill = kind.counts["prefill"]
    ack = await kind.site.acked(number, lambda one: one.replicas.get("prefill") == prefill, "prefill goes on")
    assert ack.scaled_decision_id == number - 1
    decode.set_fate(Fate())
    await kind.site.done(number)


async def zero(table: Table, kind: TargetKind) -> None:
    """None at all: carried out, but where it does not work one replica stays."""
    decode, before = kind.pools["decode"], kind.counts["decode"]
    number = await kind.decide(decode=0)
    if kind.fewest:
        words = "decode: 0 replicas do not work there: at least 1 must stay"
        ack = await kind.site.problem(number, words)
        assert (ack.status, ack.retryable, ack.scaled_decision_id) == ("failed", False, number - 1)
        await kind.site.event(decode.name, words)
    else:
        await kind.site.done(number)
    await decode.wants(kind.fewest)
    await kind.decided(decode=before)


async def update(table: Table, kind: TargetKind, what: str) -> None:
    decode = kind.pools["decode"]
    before = await decode.wanted()
    await kind.change(what, held=True)
    number = await kind.decide(decode=before + 1)
    await kind.site.problem(number, "decode: nothing is raised now")
    await kind.site.event(decode.name, "nothing is raised now")
    assert await decode.wanted() == before
    await kind.change(what, held=False)
    await kind.site.done(number)


async def rollout(table: Table, kind: TargetKind) -> None:
    """A new template is rolled out: nothing is raised until it ends."""
    await update(table, kind, "rollout")


async def restart(table: Table, kind: TargetKind) -> None:
    """The same for a restart."""
    await update(table, kind, "restart")


async def forbidden(table: Table, kind: TargetKind) -> None:
    """403: the right was taken away while the connector ran."""
    decode = kind.pools["decode"]
    number = await kind.decide(decode=kind.counts["decode"] + 1)
    ack = await kind.site.problem(number, "decode:", "403", "forbidden")
    assert ack.retryable
    await kind.site.event(decode.name, "403", "forbidden")


async def gone(table: Table, kind: TargetKind) -> None:
    """404: the object is deleted, and made again."""
    decode, before = kind.pools["decode"], kind.counts["decode"]
    await table.server.api.send("DELETE", decode.path)
    number = await kind.decide(prefill=kind.counts["prefill"] + 1)
    ack = await kind.site.problem(number, f"decode: {NO_OBJECT[kind.name]}")
    assert ack.retryable
    await decode.make(before)
    await kind.site.done(number)


async def away(table: Table, kind: TargetKind) -> None:
    """The API server does not answer: the decision waits."""
    number = await kind.decide(decode=kind.counts["decode"] + 1)
    ack = await kind.site.problem(number, "the cluster is not known")
    assert (ack.status, ack.retryable, ack.scaled_decision_id) == ("failed", True, number - 1)


async def settled(table: Table, kind: TargetKind) -> None:
    """What waited is carried out."""
    await kind.site.done(kind.number)
    assert await kind.pools["decode"].wanted() == kind.counts["decode"]


async def in_order(table: Table, kind: TargetKind) -> None:
    """No id is completed twice or out of order, and none is left open."""
    acks = kind.site.acks()
    scaled = [one.scaled_decision_id for one in acks]
    assert scaled == sorted(scaled)
    applied = [(one.decision_id, one.phase) for one in acks if one.status == "applied" and not one.reason]
    assert [number for number, _ in applied] == sorted(number for number, _ in applied)
    assert {one.decision_id for one in acks} == set(range(kind.number + 1))


async def test_missing_definitions_conflicts_and_second_writers(site: Table) -> None:
    async with site.stack, site.connector():
        await site.each(missing)
        await site.made()
        await site.each(settled)
        await site.each(grown)
        if site.double is not None:
            # Watches say nothing of the other writer: the connector writes over a version that is old.
            site.double.silent = True
        await site.each(conflict)
        if site.double is not None:
            site.double.silent = False
            site.double.drop_watches()
        await site.each(settled)
        await site.each(foreign_edit)
        await site.each(hpa)
        await site.each(keda)
        await site.each(in_order)


async def test_pods_without_room_crashes_rollouts_and_restarts(site: Table) -> None:
    await site.made()
    async with site.stack, site.connector():
        await site.each(grown)
        await site.each(unschedulable)
        await site.each(crash_loop)
        await site.each(rollout)
        await site.each(restart)
        await site.each(zero)
        await site.each(in_order)


async def test_rights_that_go_objects_that_go_and_a_server_that_goes(site: Table) -> None:
    await site.made()
    role = f"{RBAC}/namespaces/{site.server.namespace}/roles/{site.server.mark}-c"
    async with site.stack, site.connector():
        await site.each(grown)
        rules = (await site.server.api.get(role))["rules"]
        reading = [rule for rule in rules if not any(one.endswith("/scale") for one in rule["resources"])]
        await merge(site.server.api, role, {"rules": reading})
        await site.each(forbidden)
        await merge(site.server.api, role, {"rules": rules})
        await site.each(settled)
        await site.each(gone)
        await site.relay.cut()
        await site.each(away)
        await site.relay.mend()
        await site.each(settled)
        await site.each(in_order)


async def test_a_connector_that_is_killed_at_each_step(site: Table) -> None:
    await site.made()

    async def killed(process: asyncio.subprocess.Process) -> None:
        process.kill()
        await process.wait()

    async def starting(table: Table, kind: TargetKind) -> None:
        kind.pools["decode"].set_fate(Fate(starting=True))
        number = await kind.decide(decode=kind.counts["decode"] + 1)
        await kind.site.acked(number, lambda one: one.phase == "starting" and not one.reason, "starting")

    async def written(table: Table, kind: TargetKind) -> None:
        await kind.pools["decode"].wants(kind.counts["decode"])

    async def draining(table: Table, kind: TargetKind) -> None:
        kind.pools["decode"].set_fate(Fate(staying=True))
        await kind.site.done(await kind.decide(decode=kind.counts["decode"] - 1), "draining")

    async def freed(table: Table, kind: TargetKind) -> None:
        kind.pools["decode"].set_fate(Fate())

    async with site.stack:
        async with site.connector() as process:
            await site.each(grown)
            await site.relay.cut()
            await site.each(away)
            # Accepted, and nothing written yet.
            await killed(process)
        await site.relay.mend()
        async with site.connector() as process:
            await site.each(settled)
            await site.relay.cut()
            await site.each(away)
            bus = site.site.nats_pid
            _freeze(bus, frozen=True)
            await site.relay.mend()
            await site.each(written)
            # Written, and not acknowledged.
            await killed(process)
            _freeze(bus, frozen=False)
        async with site.connector() as process:
            await site.each(settled)
            await site.each(starting)
            # Written and acknowledged; pods start.
            await killed(process)
        await site.each(freed)
        async with site.connector() as process:
            await site.each(settled)
            await site.each(draining)
            # Completed; pods leave.
            await killed(process)
        await site.each(freed)
        async with site.connector():
            await site.each(grown)
            await site.each(in_order)


def _freeze(pid: int, *, frozen: bool) -> None:
    os.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)
