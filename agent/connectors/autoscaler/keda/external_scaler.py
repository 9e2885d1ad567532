"""What KEDA's external scaler answers: whether a pool is wanted at all, its metric, and its value.

Specs come from the trigger alone, so they need no bus: without a spec KEDA would have no metric. A value is the count
or an error, and never 0 unless 0 replicas were decided.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from agent.connectors.autoscaler.keda.external_scaler_pb2 import (
    DESCRIPTOR,
    GetMetricSpecResponse,
    GetMetricsRequest,
    GetMetricsResponse,
    IsActiveResponse,
    MetricSpec,
    MetricValue,
    ScaledObjectRef,
)
from agent.connectors.autoscaler.newest_decision import NewestDecision, served
from agent.core.scaling.autoscaler.external_metrics import MetricRefusedError, metric_of
from agent.core.scaling.autoscaler.pool_address import named_pool

log = logging.getLogger(__name__)
SERVICE = DESCRIPTOR.services_by_name["ExternalScaler"].full_name
TARGET = 1
"""Replicas for each unit of the value: KEDA's HPA divides by it, so the value itself is what is wanted."""
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
}


class ExternalScaler:
    """Answers KEDA; a trigger names its pool by ``deployment`` and ``pool`` in its metadata."""

    def __init__(self, decisions: Mapping[str, NewestDecision]) -> None:
        self._decisions = decisions
        self._streams: set[asyncio.Event] = set()
        self._closing = False

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a server registers. StreamMetricSpec is left out: KEDA takes UNIMPLEMENTED as "targets never change"."""
        unary: dict[str, tuple[Callable[[Any], Awaitable[Any]], Callable[[bytes], Any]]] = {
            "IsActive": (self._is_active, ScaledObjectRef.FromString),
            "GetMetricSpec": (self._metric_spec, ScaledObjectRef.FromString),
            "GetMetrics": (self._metrics, GetMetricsRequest.FromString),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(_refusing(answer), read, _bytes)
            for name, (answer, read) in unary.items()
        }
        methods["StreamIsActive"] = grpc.unary_stream_rpc_method_handler(
            self._stream_is_active, ScaledObjectRef.FromString, _bytes
        )
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def close(self) -> None:
        """End all streams in order: KEDA opens a stream again at once after that, and seconds later after a break."""
        self._closing = True
        for change in self._streams:
            change.set()

    async def _is_active(self, asked: ScaledObjectRef) -> IsActiveResponse:
        decision, pool = self._asked(asked)
        return IsActiveResponse(result=decision.count(pool).replicas > 0)

    async def _metric_spec(self, asked: ScaledObjectRef) -> GetMetricSpecResponse:
        _, pool = self._asked(asked)
        spec = MetricSpec(metricName=metric_of(pool), targetSize=TARGET, targetSizeFloat=float(TARGET))
        return GetMetricSpecResponse(metricSpecs=[spec])

    async def _metrics(self, asked: GetMetricsRequest) -> GetMetricsResponse:
        decision, pool = self._asked(asked.scaledObjectRef)
        if asked.metricName != metric_of(pool):
            message = f"metric {asked.metricName} is not the one of pool {pool}: {metric_of(pool)} is"
            raise MetricRefusedError(400, "BadRequest", message)
        count = decision.count(pool).replicas
        value = MetricValue(metricName=asked.metricName, metricValue=count, metricValueFloat=float(count))
        return GetMetricsResponse(metricValues=[value])

    async def _stream_is_active(
        self, asked: ScaledObjectRef, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[IsActiveResponse]:
        """The present state at once, where it is known, and each change of it.

        Silent while it is not known: a stream that broke off would be opened again only after up to a minute.
        """
        try:
            decision, pool = self._asked(asked)
        except MetricRefusedError as refused:
            await context.abort(CODES[refused.status], str(refused))
            return
        sent: bool | None = None
        change = asyncio.Event()
        with decision.watched(change), self._open(change):
            while not self._closing:
                change.clear()
                active = _known(decision, pool)
                if active is not None and active is not sent:
                    sent = active
                    yield IsActiveResponse(result=active)
                    continue
                await change.wait()

    @contextmanager
    def _open(self, change: asyncio.Event) -> Iterator[None]:
        self._streams.add(change)
        try:
            yield
        finally:
            self._streams.discard(change)

    def _asked(self, asked: ScaledObjectRef) -> tuple[NewestDecision, str]:
        """Raises MetricRefusedError."""
        named = named_pool(asked.scalerMetadata)
        if named is None:
            who = f"ScaledObject {asked.namespace}/{asked.name}"
            raise MetricRefusedError(400, "BadRequest", f"{who}: set deployment and pool in the trigger's metadata")
        deployment, pool = named
        return served(self._decisions, deployment), pool


def _known(decision: NewestDecision, pool: str) -> bool | None:
    try:
        return decision.count(pool).replicas > 0
    except MetricRefusedError:
        return None


def _bytes(message: Any) -> bytes:
    found: bytes = message.SerializeToString()
    return found


def _refusing(answer: Callable[[Any], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def answered(asked: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await answer(asked)
        except MetricRefusedError as refused:
            log.debug("KEDA is refused: %s", refused)
            await context.abort(CODES[refused.status], str(refused))
            raise

    return answered
