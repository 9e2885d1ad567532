"""Reads autoscalers back from the API server: what a server dropped from a manifest is seen only there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from agent.adapters.kubernetes.api import ApiError, KubernetesApi
from agent.connectors.autoscaler.newest_decision import NewestDecision
from agent.connectors.scaling_channel import decision_of
from agent.core.scaling.autoscaler.lost_steps import LostSteps, lost_steps

log = logging.getLogger(__name__)
AUTOSCALERS = ("autoscaling/v2", "horizontalpodautoscalers")
SCALED_OBJECTS = ("keda.sh/v1alpha1", "scaledobjects")
NOT_FOUND = 404


class AutoscalerReader:
    """Run `run`; ``found`` and ``unread`` are what was read last. Never scales and never acknowledges anything."""

    def __init__(self, api: KubernetesApi, decisions: Sequence[NewestDecision], interval_s: float) -> None:
        self._api = api
        self._decisions = decisions
        self._interval_s = interval_s
        self.found: tuple[LostSteps, ...] = ()
        self.unread: dict[str, str] = {}
        """By namespace, why its autoscalers could not be read."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What operators should correct."""
        return (*self.unread.values(), *(one.sentence for one in self.found if one.sentence))

    def notes_of(self, deployment: str) -> tuple[str, ...]:
        """The notes about one deployment."""
        homes = {one.namespace for one in self._decisions if one.deployment == deployment}
        lost = (one.sentence for one in self.found if one.deployment == deployment and one.sentence)
        return (*(why for namespace, why in self.unread.items() if namespace in homes), *lost)

    async def run(self) -> None:
        """Read until cancelled; each new note is logged once."""
        while True:
            before = set(self.notes)
            await self._read()
            for note in self.notes:
                if note not in before:
                    log.warning("%s", note)
            # Without a decision no pool is known yet: that takes a moment after the start.
            known = all(one.message is not None for one in self._decisions)
            await asyncio.sleep(self._interval_s if known else min(self._interval_s, 1.0))

    async def _read(self) -> None:
        found: list[LostSteps] = []
        unread: dict[str, str] = {}
        for namespace in sorted({one.namespace for one in self._decisions}):
            pools = [
                (namespace, one.deployment, pool)
                for one in self._decisions
                if one.namespace == namespace and one.message is not None
                for pool in decision_of(one.message).replicas
            ]
            try:
                autoscalers = await self._list(namespace, *AUTOSCALERS)
                scaled_objects = await self._list(namespace, *SCALED_OBJECTS)
            except ApiError as error:
                unread[namespace] = f"autoscalers of namespace {namespace} cannot be read: {error}"
                continue
            found += lost_steps(pools, autoscalers, scaled_objects)
        self.found, self.unread = tuple(found), unread

    async def _list(self, namespace: str, version: str, resource: str) -> list[Mapping[str, Any]]:
        """Empty where the cluster has no such resource."""
        try:
            listed = await self._api.get(f"/apis/{version}/namespaces/{namespace}/{resource}")
        except ApiError as error:
            if error.status == NOT_FOUND:
                return []
            raise
        return list(listed.get("items") or ())
