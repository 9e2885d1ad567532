"""Kubernetes Events about targets that are not scaled as decided: what ``kubectl describe`` shows.

Each text once for each target. Best effort: an Event that cannot be written is dropped, for acknowledgement and log
have it too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from agent.adapters.kubernetes.api import ApiError
from agent.core.scaling.kubernetes.scale_targets import ScaleTarget, kind_of

log = logging.getLogger(__name__)
LARGEST_MEMORY = 5000


class EventWriter(Protocol):
    """What writes an Event."""

    async def event(self, namespace: str, body: Mapping[str, Any]) -> None:
        """Write one. Raises ApiError."""
        ...


class ScalingEvents:
    """The Events of this process."""

    def __init__(self, cluster: EventWriter) -> None:
        self._cluster = cluster
        self._written: set[tuple[str, str]] = set()

    async def warn(
        self, target: ScaleTarget, item: Mapping[str, Any], text: str, *, reason: str = "ScalingNotDone"
    ) -> None:
        """A warning about a target's object."""
        uid = str(item["metadata"]["uid"])
        if (uid, text) in self._written:
            return
        if len(self._written) >= LARGEST_MEMORY:
            self._written.clear()
        self._written.add((uid, text))
        log.warning("%s: %s", target, text)
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        about = {
            "apiVersion": f"{target.group}/{target.version}",
            "kind": kind_of(target, item),
            "namespace": target.namespace,
            "name": target.name,
            "uid": uid,
        }
        body = {
            "metadata": {"generateName": f"{target.name[:200]}.", "namespace": target.namespace},
            "involvedObject": about,
            "reason": reason,
            "message": text[:1024],
            "type": "Warning",
            "source": {"component": "wattscale-connector"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._cluster.event(target.namespace, body)
        except ApiError as error:
            self._written.discard((uid, text))
            log.warning("cannot write an Event for %s: %s", target, error)
