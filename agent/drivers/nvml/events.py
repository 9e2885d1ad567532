"""The driver's events: XID errors and GPUs that become unavailable.

Owns one event set. Never blocks: it only takes events that are already waiting. Older cards and virtual machines have
no events, which is not an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

XID = 0x8
UNAVAILABLE = 0x4000
RECOVERY_ACTION = 0x8000
LARGEST_BATCH = 64


class EventWatch:
    """Last XID by GPU."""

    def __init__(self, nvml: Any, event_set: Any) -> None:
        self._nvml = nvml
        self._set = event_set
        self._last_xid: dict[str, int] = {}
        self._draining = threading.Lock()

    @classmethod
    def open(cls, nvml: Any, handles: Sequence[Any]) -> EventWatch | None:
        """Register every GPU that supports events. None where the driver has no events at all."""
        try:
            event_set = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            return None
        for handle in handles:
            for types in (XID | UNAVAILABLE | RECOVERY_ACTION, XID):
                try:
                    nvml.nvmlDeviceRegisterEvents(handle, types, event_set)
                    break
                except nvml.NVMLError:
                    continue
        return cls(nvml, event_set)

    def drain(self, uuid_of: Callable[[Any], str]) -> None:
        """Take all waiting events, unless another thread is doing so."""
        if self._draining.acquire(blocking=False):
            try:
                self._drain(uuid_of)
            finally:
                self._draining.release()

    def _drain(self, uuid_of: Callable[[Any], str]) -> None:
        for _ in range(LARGEST_BATCH):
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._set, 0)
                if event.eventType == XID:
                    self._last_xid[uuid_of(event.device)] = int(event.eventData)
            except self._nvml.NVMLError:
                return  # TIMEOUT: nothing waits. Anything else shows on the calls that matter.

    def last_xid(self, gpu: str) -> int | None:
        """The newest XID of one GPU since the driver was opened."""
        return self._last_xid.get(gpu)

    def close(self) -> None:
        """Free the set."""
        try:
            self._nvml.nvmlEventSetFree(self._set)
        except self._nvml.NVMLError:
            pass  # The driver is going away and takes the set with it.
