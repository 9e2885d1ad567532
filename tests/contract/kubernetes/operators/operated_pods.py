"""The pods of one pool, kept as an operator, a scheduler and a kubelet would: created, placed, ready, and gone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.adapters.kubernetes.api import ApiError
from tests.contract.kubernetes.api_server import ApiServer, merge

NODE = "no-such-node"
REVISION = "wattscale.test/revision"
Item = dict[str, Any]


@dataclass
class Fate:
    """How pods of one pool fare from now on. ``lagging``: a graph does not take over the adapter's count."""

    unschedulable: str = ""
    crashing: str = ""
    starting: bool = False
    """New pods stay without being ready."""
    lagging: bool = False
    staying: bool = False
    """Pods that are deleted stay as terminating."""
    unready: bool = False
    """No pod becomes ready, and none that is ready is touched."""
    rolling: bool = False
    """Pods of an earlier template stay: a rollout that does not come further."""


@dataclass
class OperatedPods:
    """Pods with these labels. ``size``: pods of one replica, which is ready when all of them are."""

    server: ApiServer
    prefix: str
    labels: dict[str, str]
    size: int = 1
    revision: str = ""
    """Which template new pods have."""
    _number: int = field(default=0)

    async def pods(self) -> list[Item]:
        """All of them, terminating ones too."""
        selector = ",".join(f"{key}={value}" for key, value in self.labels.items())
        found = await self.server.api.get(self.server.path("", "v1", "pods"), {"labelSelector": selector})
        items: list[Item] = found["items"]
        return items

    async def scale(self, replicas: int, fate: Fate) -> None:
        """One step towards so many replicas."""
        live = [pod for pod in await self.pods() if "deletionTimestamp" not in pod["metadata"]]
        # Those that do not serve go first.
        live.sort(key=is_ready, reverse=True)
        target = replicas * self.size
        for pod in live[target:]:
            await self._delete(pod)
        if not fate.rolling:
            for pod in [pod for pod in live[:target] if not self._is_current(pod)]:
                await self._delete(pod)
                live.remove(pod)
        for _ in range(target - len(live)):
            await self._create(fate)
        for pod in await self.pods():
            if "deletionTimestamp" not in pod["metadata"]:
                await self._settle(pod, fate)
            elif not fate.staying:
                await self.remove(pod)

    async def ready(self) -> int:
        """Replicas all of whose pods are ready and stay."""
        return self.ready_of(await self.pods())

    def ready_of(self, pods: list[Item]) -> int:
        """The same for pods that were listed already."""
        return sum(1 for pod in pods if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]) // self.size

    def updated_of(self, pods: list[Item]) -> int:
        """Replicas all of whose pods have the newest template."""
        live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        return sum(1 for pod in live if self._is_current(pod)) // self.size

    def _is_current(self, pod: Item) -> bool:
        return (pod["metadata"].get("annotations") or {}).get(REVISION, "") == self.revision

    async def clear(self) -> None:
        """Remove all of them at once."""
        for pod in await self.pods():
            await self.remove(pod)

    async def _create(self, fate: Fate) -> None:
        self._number += 1
        container: Item = {"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "1"}}}
        spec: Item = {"containers": [container], "automountServiceAccountToken": False}
        if not fate.unschedulable:
            spec["nodeName"] = NODE
        metadata = {
            "name": f"{self.prefix}-{self._number}",
            "labels": self.labels,
            "annotations": {REVISION: self.revision},
        }
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        await self.server.api.post(self.server.path("", "v1", "pods"), body)

    async def _settle(self, pod: Item, fate: Fate) -> None:
        """The status that scheduler and kubelet would write."""
        if fate.unready:
            return
        if "nodeName" not in pod["spec"]:
            if not fate.unschedulable:
                # A scheduler would bind it; here a new pod takes its place.
                await self._delete(pod)
                return
            refused = condition("PodScheduled", "False", "Unschedulable", fate.unschedulable)
            await self._write_status(pod, {"phase": "Pending", "conditions": [refused]})
            return
        ready = not fate.crashing and not (fate.starting and not is_ready(pod))
        conditions = [condition("PodScheduled", "True"), condition("Ready", "True" if ready else "False")]
        state = {"waiting": {"reason": fate.crashing}} if fate.crashing else {"running": {}}
        container = {
            "name": "main",
            "image": "none",
            "imageID": "",
            "ready": ready,
            "restartCount": 3 if fate.crashing else 0,
            "state": state,
        }
        await self._write_status(pod, {"phase": "Running", "conditions": conditions, "containerStatuses": [container]})

    async def _write_status(self, pod: Item, status: Item) -> None:
        if signs(pod.get("status") or {}) == signs(status):
            return
        path = self.server.path("", "v1", "pods", pod["metadata"]["name"], "status")
        await merge(self.server.api, path, {"status": status})

    async def _delete(self, pod: Item) -> None:
        with suppress_missing():
            await self.server.api.send("DELETE", self.server.path("", "v1", "pods", pod["metadata"]["name"]))

    async def remove(self, pod: Item) -> None:
        """Delete one at once, without grace."""
        path = self.server.path("", "v1", "pods", pod["metadata"]["name"])
        with suppress_missing():
            await self.server.api.send("DELETE", path, query={"gracePeriodSeconds": "0"})


class suppress_missing(suppress):  # noqa: N801 - reads as the standard library's own
    """Passes over an object that is gone already."""

    def __init__(self) -> None:
        super().__init__(ApiError)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return isinstance(error, ApiError) and error.status == 404


def condition(kind: str, status: str, reason: str = "", message: str = "") -> Item:
    """A condition that begins now."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    more = {"reason": reason, "message": message} if reason else {}
    return {"type": kind, "status": status, "lastTransitionTime": now, **more}


def is_ready(pod: Item) -> bool:
    """Whether its kubelet calls it ready."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def signs(status: Item) -> Any:
    """A status without times, to see whether a write is needed: a later time alone is no change."""
    if isinstance(status, dict):
        return {
            key: signs(value)
            for key, value in status.items()
            if key in SHOWN or (key not in HIDDEN and isinstance(value, (dict, str, int)))
        }
    if isinstance(status, list):
        return [signs(one) for one in status]
    return status


SHOWN = ("conditions", "containerStatuses")
HIDDEN = ("lastTransitionTime", "qosClass", "startTime")
