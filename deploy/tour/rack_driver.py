"""One node's GPUs and their owners as an agent process sees them: what `GpuRack` serves."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.ports import DriverError, DriverErrorKind, GpuInfo, GpuOwner, GpuReading, OwnersUnknownError

TIMEOUT_S = 5.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _NoAnswerError(Exception):
    """``kind``: what that means to a driver."""

    def __init__(self, text: str, kind: DriverErrorKind) -> None:
        super().__init__(text)
        self.kind = kind


def _asked(path: Path, method: str, where: str) -> Any:
    """Raises _NoAnswerError."""
    connection = _UnixConnection(path)
    try:
        connection.request(method, where)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise _NoAnswerError(f"the simulated GPUs do not answer: {error}", DriverErrorKind.DRIVER_DOWN) from error
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise _NoAnswerError(f"{where}: not there", DriverErrorKind.NO_SUCH_GPU)
    return json.loads(body) if body else None


class RackDriver:
    """A ``GpuDriver``."""

    def __init__(self, path: Path, node: str) -> None:
        self._path, self._node = path, node

    def enumerate(self) -> Sequence[GpuInfo]:
        rows = self._called("enumerate", "GET", "gpus")
        return [GpuInfo(**{**row, "mig_instances": tuple(row["mig_instances"])}) for row in rows]

    def failed(self) -> Mapping[str, DriverError]:
        return {}

    def read(self, gpu: str) -> GpuReading:
        row = self._called("read", "GET", f"gpus/{gpu}", gpu)
        return GpuReading(**{**row, "throttle_reasons": tuple(row["throttle_reasons"])})

    def set_limit(self, gpu: str, mw: int) -> None:
        self._called("set_limit", "PUT", f"gpus/{gpu}/limit/{mw}", gpu)

    def close(self) -> None:
        """Nothing to release: limits stay as they are."""

    def _called(self, call: str, method: str, what: str, gpu: str = "") -> Any:
        try:
            return _asked(self._path, method, f"/{self._node}/{what}")
        except _NoAnswerError as error:
            raise DriverError(error.kind, str(error), call=call, gpu=gpu) from error


class RackOwners:
    """A ``GpuOwners``."""

    def __init__(self, path: Path, node: str) -> None:
        self._path, self._node = path, node

    async def owners(self) -> Mapping[str, GpuOwner]:
        try:
            found = await asyncio.to_thread(_asked, self._path, "GET", f"/{self._node}/owners")
        except _NoAnswerError as error:
            raise OwnersUnknownError(str(error)) from error
        return {gpu: GpuOwner(**owner) for gpu, owner in found.items()}
