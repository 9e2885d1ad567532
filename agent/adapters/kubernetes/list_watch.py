"""One collection of Kubernetes objects, kept current: list, then watch from that version on.

Owns the resource version and the rules of watching: a version that is too old (410) requires a new list; bookmarks
advance the version; failures back off, and a success resets the back-off. Silence means a dead connection, or a version
that the server has not reached, because its store was restored from a copy: such a watch is accepted and says nothing
until the store is past that version, so silence requires a new list too. Until the first list the content is unknown,
and a failed list changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from agent.adapters.kubernetes.api import ApiError, SilentError
from agent.adapters.kubernetes.pages import PAGE, Reader, pages
from agent.ports import MonotonicClock, monotonic
from bus_schemas.jetstream.tasks.backoff import Backoff

log = logging.getLogger(__name__)
T = TypeVar("T")
GONE = 410


@dataclass(frozen=True, slots=True)
class WatchTiming:
    """Seconds. A server sends a bookmark about once a minute: ``silence_s`` is well above that."""

    watch_s: int = 290
    silence_s: float = 100.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    page: int = PAGE


class ReadableApi(Reader, Protocol):
    """What a list-watch needs from a client. Both raise ApiError."""

    def lines(
        self, path: str, query: Mapping[str, str], *, silence_s: float, opened: Callable[[], None] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """A watch, one object per line. ``opened`` is called once the server has accepted it."""
        ...


class TooOldError(Exception):
    """The server no longer knows the resource version."""


class ListWatch(Generic[T]):
    """Objects of ``path`` by uid, as ``read`` sees them. ``read`` returns None for an object to be ignored."""

    def __init__(
        self,
        api: ReadableApi,
        path: str,
        read: Callable[[Mapping[str, Any]], T | None],
        *,
        selector: Mapping[str, str] | None = None,
        timing: WatchTiming | None = None,
        clock: MonotonicClock = monotonic,
    ) -> None:
        self._api = api
        self._path = path
        self._read = read
        self._selector = dict(selector or {})
        self._timing = timing or WatchTiming()
        self._clock = clock
        self._on_change: Callable[[], None] = lambda: None
        self._on_item: Callable[[T | None, T | None], None] = lambda before, after: None
        self._items: dict[str, T] = {}
        self._version = ""
        self._listed = False
        self._last_message_s = float("-inf")
        self.failures = 0
        """Lists and watches that failed since the start."""
        self.last_error = ""
        self.interrupted = ""
        """Why changes are not seen now; empty while a watch is open, and between two watches."""

    @property
    def items(self) -> Mapping[str, T] | None:
        """Objects by uid; None until the first list: unknown, not empty."""
        return self._items if self._listed else None

    @property
    def age_s(self) -> float:
        """Seconds since the last message from the server."""
        return self._clock() - self._last_message_s

    def on_change(self, call: Callable[[], None]) -> None:
        """Call ``call`` whenever an object was added, changed or removed."""
        self._on_change = call

    def on_item(self, call: Callable[[T | None, T | None], None]) -> None:
        """Call ``call`` with each object that changes, before and after; None where there is none."""
        self._on_item = call

    async def run(self) -> None:
        """Keep current until cancelled."""
        backoff = Backoff(self._timing.first_pause_s, self._timing.longest_pause_s)
        while True:
            try:
                if not self._version:
                    await self._list()
                    backoff.reset()
                before_s = self._last_message_s
                await self._watch()
                if self._last_message_s > before_s:
                    backoff.reset()
                    continue
                # A watch that ends at once without a message is not a success: back off.
            except TooOldError:
                self._version = ""
            except ApiError as error:
                if isinstance(error, SilentError):
                    self._version = ""
                self.failures += 1
                self.last_error = str(error)
                self.interrupted = str(error) if error.status else "no answer from the API server"
                log.warning("%s: %s", self._path, error)
                self._on_change()
            await asyncio.sleep(backoff.next_s())

    async def _list(self) -> None:
        found: dict[str, T] = {}
        version = ""
        async for page in pages(self._api, self._path, self._selector, self._timing.page):
            for item in page.get("items", ()):
                self._put(found, item)
            version = str(page.get("metadata", {}).get("resourceVersion", ""))
        before, self._items = self._items, found
        self._version, self._listed, self.interrupted = version, True, ""
        self._mark_alive()
        for uid in before.keys() | found.keys():
            if before.get(uid) != found.get(uid):
                self._on_item(before.get(uid), found.get(uid))
        self._on_change()

    async def _watch(self) -> None:
        query = {
            **self._selector,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(self._timing.watch_s),
        }
        try:
            lines = self._api.lines(self._path, query, silence_s=self._timing.silence_s, opened=self._opened)
            async for event in lines:
                self._take(str(event.get("type")), event.get("object", {}))
        except ApiError as error:
            if error.status == GONE:
                raise TooOldError from error
            raise

    def _opened(self) -> None:
        if self.interrupted:
            self.interrupted = ""
            self._on_change()

    def _take(self, kind: str, item: Mapping[str, Any]) -> None:
        if kind == "ERROR":
            code = int(item.get("code", 0))
            if code == GONE:
                raise TooOldError
            raise ApiError(code, str(item.get("message", "the watch ended with an error")))
        self._mark_alive()
        version = item.get("metadata", {}).get("resourceVersion")
        if version:
            self._version = str(version)
        if kind == "BOOKMARK":
            return
        before = self._items.get(_uid(item))
        if kind == "DELETED":
            self._items.pop(_uid(item), None)
        else:
            self._put(self._items, item)
        self._on_item(before, self._items.get(_uid(item)))
        self._on_change()

    def _put(self, items: dict[str, T], item: Mapping[str, Any]) -> None:
        value = self._read(item)
        if value is None:
            items.pop(_uid(item), None)
        else:
            items[_uid(item)] = value

    def _mark_alive(self) -> None:
        self._last_message_s = self._clock()


def _uid(item: Mapping[str, Any]) -> str:
    return str(item.get("metadata", {}).get("uid", ""))
