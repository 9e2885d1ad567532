"""Controllers of the tests for workloads without a graph: spec to pods, pods to status. Speaks only the API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from agent.adapters.kubernetes.api import ApiError
from tests.contract.kubernetes.api_server import ApiServer, merge
from tests.contract.kubernetes.operators.operated_pods import Fate, Item, OperatedPods
from tests.contract.kubernetes.operators.reconciling import again_after, reconciling, watched

MARK = "wattscale.test/workload"
LWS, GROVE = "leaderworkerset.x-k8s.io", "grove.io"
GANG_LABELS = {LWS: "leaderworkerset.sigs.k8s.io/name", GROVE: "grove.io/podcliquescalinggroup"}


@dataclass(frozen=True)
class WorkloadKind:
    """A kind of workload. ``defined``: by a CustomResourceDefinition. ``size``: pods of one replica."""

    group: str
    version: str
    resource: str
    kind: str
    defined: bool = False
    size: int = 1


DEPLOYMENT = WorkloadKind("apps", "v1", "deployments", "Deployment")
STATEFUL_SET = WorkloadKind("apps", "v1", "statefulsets", "StatefulSet")
LEADER_WORKER_SET = WorkloadKind(LWS, "v1", "leaderworkersets", "LeaderWorkerSet", defined=True, size=2)
SCALING_GROUP = WorkloadKind(GROVE, "v1alpha1", "podcliquescalinggroups", "PodCliqueScalingGroup", defined=True, size=2)
ENGINE = WorkloadKind("x.wattscale.test", "v1", "engines", "Engine", defined=True)


@dataclass
class Workload:
    """One object, with how its pods fare."""

    server: ApiServer
    kind: WorkloadKind
    name: str
    fate: Fate = field(default_factory=Fate)

    def __post_init__(self) -> None:
        labels = {MARK: self.name}
        if self.kind.group in GANG_LABELS:
            labels[GANG_LABELS[self.kind.group]] = self.name
        self.pods = OperatedPods(self.server, self.name, labels, self.kind.size)

    def path(self, sub: str = "") -> str:
        """The object's path."""
        return self.server.path(self.kind.group, self.kind.version, self.kind.resource, self.name, sub)

    async def make(self, replicas: int = 1) -> None:
        """Create the object."""
        template = {
            "metadata": {"labels": self.pods.labels},
            "spec": {"containers": [{"name": "main", "image": "none"}]},
        }
        spec: Item = {"replicas": replicas}
        if self.kind.group == LWS:
            spec["leaderWorkerTemplate"] = {"size": self.kind.size, "workerTemplate": template}
        else:
            spec["template"] = template
        if self.kind.group == "apps":
            spec["selector"] = {"matchLabels": {MARK: self.name}}
        if self.kind == STATEFUL_SET:
            spec["serviceName"] = self.name
        body = {
            "apiVersion": f"{self.kind.group}/{self.kind.version}",
            "kind": self.kind.kind,
            "metadata": {"name": self.name},
            "spec": spec,
        }
        await self.server.make(self.path().rpartition("/")[0], body, manager="helm")

    async def change_template(self, image: str) -> None:
        """What a rollout or a restart begins with: another template."""
        pod = {"spec": {"containers": [{"name": "main", "image": image}]}}
        spec = {"leaderWorkerTemplate": {"workerTemplate": pod}} if self.kind.group == LWS else {"template": pod}
        await merge(self.server.api, self.path(), {"spec": spec}, manager="kubectl-rollout")

    async def reconcile(self) -> None:
        """One step of its controller."""
        try:
            item = await self.server.api.get(self.path())
        except ApiError as error:
            if error.status != 404:
                raise
            await self.pods.clear()
            return
        spec = item["spec"]
        self.pods.revision = json.dumps(spec.get("template") or spec.get("leaderWorkerTemplate"), sort_keys=True)
        await self.pods.scale(spec["replicas"], self.fate)
        pods = await self.pods.pods()
        live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        ready = self.pods.ready_of(pods)
        status: Item = {
            "observedGeneration": item["metadata"]["generation"],
            "replicas": len(live) // self.kind.size,
            "updatedReplicas": self.pods.updated_of(pods),
        }
        if self.kind == SCALING_GROUP:
            # It has no readyReplicas, and counts as updated only what is available.
            status |= {"availableReplicas": ready, "updatedReplicas": min(ready, status["updatedReplicas"])}
        else:
            status["readyReplicas"] = ready
        if self.kind in (DEPLOYMENT, STATEFUL_SET):
            status["availableReplicas"] = ready
        if self.kind == ENGINE:
            status["selector"] = f"{MARK}={self.name}"
        if any((item.get("status") or {}).get(key) != value for key, value in status.items()):
            await merge(self.server.api, self.path("status"), {"status": status})


class WorkloadOperator:
    """Runs these workloads; each is reconciled when it or one of its pods changes."""

    def __init__(self, server: ApiServer, workloads: Iterable[Workload]) -> None:
        self.server = server
        self.workloads = {one.name: one for one in workloads}
        self._due = set(self.workloads)
        self._changed = asyncio.Event()

    def set_fate(self, workload: Workload, fate: Fate) -> None:
        """How the workload's pods fare from now on."""
        workload.fate = fate
        self._mark(workload.name)

    def _mark(self, name: str) -> None:
        if name in self.workloads:
            self._due.add(name)
            self._changed.set()

    def _item_changed(self, before: Item | None, after: Item | None) -> None:
        metadata = (after or before or {})["metadata"]
        self._mark((metadata.get("labels") or {}).get(MARK, metadata["name"]))

    def running(self) -> AbstractAsyncContextManager[None]:
        """Reconcile until the block ends. Then the pods are deleted."""
        paths = {self.server.path(one.kind.group, one.kind.version, one.kind.resource) for one in self._all()}
        watches = [watched(self.server, path) for path in sorted(paths)]
        watches.append(watched(self.server, self.server.path("", "v1", "pods"), {"labelSelector": MARK}))
        for watch in watches:
            watch.on_item(self._item_changed)
        return reconciling(watches, self._run(), [one.pods for one in self._all()])

    def _all(self) -> Iterable[Workload]:
        return self.workloads.values()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            while self._due:
                name = self._due.pop()
                try:
                    await self.workloads[name].reconcile()
                except ApiError as error:
                    await again_after(error)
                    self._due.add(name)
            await self._changed.wait()
