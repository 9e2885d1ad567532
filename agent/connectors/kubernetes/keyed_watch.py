"""One collection of the API server for everybody in this process, found by keys, with who asked woken at each change.

A collection is watched once, however many deployments it serves: what one of them costs the API server and this
process must not grow with the others. Rights and definition are asked first; what is missing is shown in words.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from agent.adapters.kubernetes.api import ApiError
from agent.adapters.kubernetes.list_watch import ListWatch, ReadableApi, WatchTiming
from agent.core.scaling.kubernetes.needed_rights import Right, manifest_lines
from bus_schemas.jetstream.tasks.backoff import Backoff

log = logging.getLogger(__name__)
T = TypeVar("T")
Wake = Callable[[], None]
TIMING = WatchTiming(watch_s=290, silence_s=100.0, first_pause_s=0.2, longest_pause_s=10.0)
NOT_FOUND, FORBIDDEN = 404, 403
NOT_LISTED = "not listed yet"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


class WatchableCluster(ReadableApi, Protocol):
    """What a watch needs from a client."""

    async def allowed(self, right: Right) -> bool:
        """Whether this account has a right. Raises ApiError."""
        ...


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of one namespace."""

    namespace: str
    group: str
    version: str
    resource: str

    @property
    def path(self) -> str:
        """Its path on the server."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return f"{root}/namespaces/{self.namespace}/{self.resource}"

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


class KeyedWatch(Generic[T]):
    """A watched collection. ``choices``: the same one in several versions; the first that is served is taken.

    ``optional``: one that is not served or not allowed counts as empty, and is asked for again. ``rights``: what is
    asked for before the first list. ``keys``: under what an object is found.
    """

    def __init__(
        self,
        cluster: WatchableCluster,
        choices: Sequence[Collection],
        read: Callable[[Any], T],
        keys: Callable[[T], Iterable[str]],
        *,
        rights: Sequence[Right] = (),
        selector: str = "",
        optional: bool = False,
    ) -> None:
        self._cluster, self._choices, self._read, self._keys = cluster, choices, read, keys
        self._rights, self._optional, self._selector = rights, optional, selector
        self.collection = choices[0]
        self._watch: ListWatch[T] | None = None
        self._asked: dict[str, set[Wake]] = {}
        self._found: dict[str, dict[int, T]] = {}
        self._everybody: set[Wake] = set()
        self._trouble, self._absent = NOT_LISTED, False
        self._shown = NOT_LISTED

    @property
    def unknown(self) -> str:
        """Why its content is not known now, in words; empty where it is."""
        if self._watch is None:
            return "" if self._absent else self._trouble
        if self._watch.items is None:
            return self._watch.last_error or NOT_LISTED
        return self._watch.interrupted

    @property
    def listed(self) -> bool:
        """Whether the content was known at some time."""
        return self._absent or (self._watch is not None and self._watch.items is not None)

    @property
    def needed_rights(self) -> tuple[Right, ...]:
        """The rights without which the content stays unknown; none where it is optional."""
        return () if self._optional else tuple(self._rights)

    def join(self, wake: Wake) -> None:
        """Call ``wake`` whenever the content becomes known or unknown."""
        self._everybody.add(wake)

    def find(self, key: str, wake: Wake) -> list[T]:
        """The objects under a key now; ``wake`` is called when they change."""
        if key not in self._asked:
            items = (self._watch.items if self._watch is not None else None) or {}
            self._asked[key] = set()
            self._found[key] = {id(one): one for one in items.values() if key in set(self._keys(one))}
        self._asked[key].add(wake)
        return list(self._found[key].values())

    def _changed(self, before: T | None, after: T | None) -> None:
        woken: set[Wake] = set()
        for key in () if before is None else self._keys(before):
            if key in self._asked:
                woken |= self._asked[key]
                self._found[key].pop(id(before), None)
        for key in () if after is None else self._keys(after):
            if key in self._asked and after is not None:
                woken |= self._asked[key]
                self._found[key][id(after)] = after
        for wake in woken:
            wake()

    def _state_changed(self) -> None:
        if self.unknown != self._shown:
            self._shown = self.unknown
            for wake in self._everybody:
                wake()

    async def run(self) -> None:
        """Ask until everything needed is there, then keep current until cancelled."""
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            try:
                self._set_trouble(await self._missing())
            except ApiError as error:
                self._absent = self._optional and error.status in (FORBIDDEN, NOT_FOUND)
                self._set_trouble(f"Kubernetes: {error}")
            if not self._trouble:
                break
            await asyncio.sleep(backoff.next_s())
        query = {"labelSelector": self._selector} if self._selector else None
        watch = ListWatch(self._cluster, self.collection.path, self._read, selector=query, timing=TIMING)
        watch.on_item(self._changed)
        watch.on_change(self._state_changed)
        self._watch, self._absent = watch, False
        await watch.run()

    async def _missing(self) -> str:
        """What stands in the way of the first list, with what to do; empty where nothing does. Raises ApiError."""
        missing = [right for right in self._rights if not await self._cluster.allowed(right)]
        if missing:
            self._absent = self._optional
            return "; ".join(manifest_lines(missing))
        for choice in self._choices:
            try:
                await self._cluster.get(choice.path, {"limit": "1"})
            except ApiError as error:
                if error.status != NOT_FOUND:
                    raise
                continue
            self.collection = choice
            return ""
        self._absent = self._optional
        versions = " or ".join(choice.version for choice in self._choices)
        return f"{self.collection.name} is not defined in version {versions}: install its definition"

    def _set_trouble(self, text: str) -> None:
        if text and text != self._trouble:
            log.log(logging.DEBUG if self._optional else logging.ERROR, "%s: %s", self.collection.name, text)
        self._trouble = text
        self._state_changed()
