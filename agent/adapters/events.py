"""Kubernetes events about pods: what an operator sees under ``kubectl describe pod``.

Owns one event per thing to say. Best effort: an event that can not be written is dropped, for the log has it too.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from agent.adapters.kubernetes_api import ApiError, KubernetesApi
from agent.core.ownership import Pod

log = logging.getLogger(__name__)
LARGEST_MEMORY = 2000


class PodEvents:
    """Events of one node's agent."""

    def __init__(self, api: KubernetesApi, node: str) -> None:
        self._api = api
        self._node = node
        self._said: set[tuple[str, str, str]] = set()

    async def warn(self, pod: Pod, reason: str, text: str) -> None:
        """A warning about ``pod``, once for each text."""
        key = (pod.uid, reason, text)
        if key in self._said or not pod.uid:
            return
        if len(self._said) >= LARGEST_MEMORY:
            self._said.clear()
        self._said.add(key)
        log.warning("pod %s/%s: %s", pod.ref.namespace, pod.ref.name, text)
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{pod.ref.name[:200]}.", "namespace": pod.ref.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": pod.ref.namespace,
                "name": pod.ref.name,
                "uid": pod.uid,
            },
            "reason": reason,
            "message": text[:1024],
            "type": "Warning",
            "source": {"component": "wattscale-agent", "host": self._node},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._api.post(f"/api/v1/namespaces/{pod.ref.namespace}/events", body)
        except ApiError as error:
            log.warning("no event written for pod %s/%s: %s", pod.ref.namespace, pod.ref.name, error)
