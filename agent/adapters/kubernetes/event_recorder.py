"""Kubernetes events about pods and their node: what an operator sees under ``kubectl describe``.

Writes each distinct event once. Best effort: an event that cannot be written is dropped, because the log has it too.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from agent.adapters.kubernetes.api import ApiError, KubernetesApi
from agent.core.ownership import Pod

log = logging.getLogger(__name__)
LARGEST_MEMORY = 2000


class KubernetesEvents:
    """Events of one node's agent."""

    def __init__(self, api: KubernetesApi, node: str) -> None:
        self._api = api
        self._node = node
        self._sent: set[tuple[str, str, str]] = set()

    async def warn(self, pod: Pod, reason: str, text: str) -> None:
        """A warning about ``pod``, once for each text."""
        if not pod.uid:
            return
        about = {"kind": "Pod", "namespace": pod.ref.namespace, "name": pod.ref.name, "uid": pod.uid}
        await self._warn(about, pod.ref.namespace, reason, text)

    async def warn_node(self, reason: str, text: str) -> None:
        """A warning about the node; its events live in ``default`` and name it as the kubelet does."""
        await self._warn({"kind": "Node", "name": self._node, "uid": self._node}, "default", reason, text)

    async def _warn(self, about: dict[str, str], namespace: str, reason: str, text: str) -> None:
        key = (about["uid"], reason, text)
        if key in self._sent:
            return
        if len(self._sent) >= LARGEST_MEMORY:
            self._sent.clear()
        self._sent.add(key)
        log.warning("%s %s: %s", about["kind"], about["name"], text)
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{about['name'][:200]}.", "namespace": namespace},
            "involvedObject": {"apiVersion": "v1", **about},
            "reason": reason,
            "message": text[:1024],
            "type": "Warning",
            "source": {"component": "wattscale-agent", "host": self._node},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._api.post(f"/api/v1/namespaces/{namespace}/events", body)
        except ApiError as error:
            log.warning("cannot write an event for %s %s: %s", about["kind"], about["name"], error)
