"""A client of KEDA's external scaler, generated from our definition of the interface each time that tests need it."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc

from deploy.stubs import DEFINITION

NOT_YET = (grpc.StatusCode.UNAVAILABLE,)


def generated(folder: Path) -> tuple[ModuleType, ModuleType]:
    """Messages and client, as the modules that the compiler writes."""
    from grpc_tools import protoc

    out = (f"--python_out={folder}", f"--grpc_python_out={folder}")
    assert protoc.main(("protoc", f"-I{DEFINITION.parent}", *out, DEFINITION.name)) == 0
    sys.path.insert(0, str(folder))
    try:
        messages, client = f"{DEFINITION.stem}_pb2", f"{DEFINITION.stem}_pb2_grpc"
        return importlib.import_module(messages), importlib.import_module(client)
    finally:
        sys.path.remove(str(folder))


class ScalerClient:
    """What KEDA does for one trigger."""

    def __init__(self, modules: tuple[ModuleType, ModuleType], channel: Any, metadata: Mapping[str, str]) -> None:
        self.messages, client = modules
        self.stub = client.ExternalScalerStub(channel)
        self.metadata = dict(metadata)

    def ref(self, **changes: str) -> Any:
        metadata = {key: value for key, value in {**self.metadata, **changes}.items() if value}
        return self.messages.ScaledObjectRef(name="llama-decode", namespace="prod", scalerMetadata=metadata)

    async def active(self) -> bool:
        return bool((await self.stub.IsActive(self.ref())).result)

    async def spec(self) -> list[tuple[str, int, float]]:
        answer = await self.stub.GetMetricSpec(self.ref())
        return [(one.metricName, one.targetSize, one.targetSizeFloat) for one in answer.metricSpecs]

    async def value(self, metric: str = "wattscale-decode", **changes: str) -> tuple[int, float]:
        """Both number fields."""
        asked = self.messages.GetMetricsRequest(scaledObjectRef=self.ref(**changes), metricName=metric)
        (one,) = (await self.stub.GetMetrics(asked)).metricValues
        assert one.metricName == metric
        return one.metricValue, one.metricValueFloat

    async def refusal(self, call: Any) -> tuple[grpc.StatusCode, str]:
        """The status and the words of a call that fails."""
        try:
            answered = await call
        except grpc.aio.AioRpcError as error:
            return error.code(), str(error.details())
        raise AssertionError(f"it was answered: {answered}")

    def stream(self, **changes: str) -> ActiveStream:
        return ActiveStream(self.stub.StreamIsActive(self.ref(**changes)))


class ActiveStream:
    """One open StreamIsActive."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def next(self) -> bool | None:
        """The next state; None where the stream ended in order. Raises AioRpcError where it broke off."""
        answer = await asyncio.wait_for(self._call.read(), 60)
        return None if answer is grpc.aio.EOF else bool(answer.result)

    def done(self) -> bool:
        return bool(self._call.done())

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """Wait for the end: its status and words."""
        code = await asyncio.wait_for(self._call.code(), 60)
        return code, str(await self._call.details())


@asynccontextmanager
async def channel_to(port: int, credentials: grpc.ChannelCredentials | None = None) -> AsyncIterator[Any]:
    """A connection of its own: gRPC shares connections within a process otherwise."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    address = f"127.0.0.1:{port}"
    if credentials is None:
        made = grpc.aio.insecure_channel(address, options=options)
    else:
        made = grpc.aio.secure_channel(address, credentials, options=options)
    async with made as channel:
        yield channel
