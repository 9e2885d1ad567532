"""A kubelet's pod-resources API on a unix socket: the answer is written field by field from our own small encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc

Assigned = Mapping[tuple[str, str], Mapping[str, Sequence[str]]]
"""Device ids by resource name, by (namespace, pod)."""


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def block(number: int, body: bytes | str) -> bytes:
    """One length-delimited field."""
    data = body.encode() if isinstance(body, str) else body
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def number_field(number: int, value: int) -> bytes:
    """One varint field."""
    return _varint(number << 3) + _varint(value)


def answer_of(assigned: Assigned) -> bytes:
    """A ``ListPodResourcesResponse`` with the fields that a reader must skip left in."""
    out = b""
    for (namespace, pod), resources in assigned.items():
        devices = b""
        for resource, ids in resources.items():
            topology = block(3, block(1, number_field(1, 0)))
            devices += block(2, block(1, resource) + b"".join(block(2, one) for one in ids) + topology)
        container = block(1, "engine") + devices + number_field(3, 300) + block(4, block(1, "memory"))
        out += block(1, block(1, pod) + block(2, namespace) + block(3, container))
    return out


class FakeKubelet:
    """``async with FakeKubelet(folder) as kubelet``; change ``assigned`` at will, ``stop`` and ``start`` again."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "kubelet.sock"
        self.assigned: Assigned = {}
        self.raw: bytes | None = None
        """Answer with these bytes instead."""
        self.calls = 0
        self._server: Any = None

    async def __aenter__(self) -> FakeKubelet:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        async def answer(request: bytes, context: Any) -> bytes:
            assert request == b""
            self.calls += 1
            return self.raw if self.raw is not None else answer_of(self.assigned)

        method = grpc.unary_unary_rpc_method_handler(answer)
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("v1.PodResourcesLister", {"List": method}),)
        )
        self._server.add_insecure_port(f"unix://{self.socket}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None
        self.socket.unlink(missing_ok=True)
