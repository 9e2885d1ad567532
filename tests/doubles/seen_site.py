"""Messages of a small site as its planner, agents and connector send them, and a way to put them on a bus."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish

CHAT, SITE = "prod-chat", "row-1"
MODEL_GPU = {"default_watts": 700.0, "min_watts": 200.0, "max_watts": 700.0, "model": "H100"}
_numbers = itertools.count()


def gpu(node: str, index: int, **changes: Any) -> v1.GpuTelemetry:
    """A well GPU of the decode pool, by default at 390 W of 400 W."""
    fields: dict[str, Any] = {
        "gpu": f"GPU-{node}-{index}", "index": index, "draw_watts": 390.0, "enforced_watts": 400.0,
        "granted_watts": 400.0, "deployment": CHAT, "pool": "decode", "role": "decode", "pod": f"chat-{node}-{index}",
        **MODEL_GPU,
    }  # fmt: skip
    return v1.GpuTelemetry(**{**fields, **changes})


def report(node: str, *gpus: v1.GpuTelemetry, at: datetime | None = None, applied: int = 0) -> v1.NodeTelemetry:
    """A node's telemetry; without ``gpus`` eight well ones."""
    found = gpus or tuple(gpu(node, index) for index in range(8))
    return v1.NodeTelemetry(time=at or datetime.now(UTC), node=node, gpus=found, applied_decision_id=applied)


def power(node: str, number: int, at: datetime | None = None, **changes: Any) -> v1.PowerDecision:
    """A decision that holds eight GPUs at 400 W."""
    caps = tuple(v1.GpuCap(gpu=f"GPU-{node}-{i}", cap_watts=400.0, fallback_watts=200.0) for i in range(8))
    fields: dict[str, Any] = {
        "time": at or datetime.now(UTC), "node": node, "decision_id": number, "incarnation": "i", "epoch": 1,
        "valid_for_s": 30.0, "caps": caps, "site": SITE, "budget_watts": 10_000.0,
        "reasons": (v1.Reason(code="rebalance", text="3200 W for 8 GPUs"),),
    }  # fmt: skip
    return v1.PowerDecision(**{**fields, **changes})


def decision(
    number: int, decode: int, at: datetime | None = None, text: str = "as the load needs"
) -> v1.ScalingDecision:
    """A scaling decision of the deployment."""
    pools = {
        "prefill": v1.PoolTarget(role="prefill", replicas=2),
        "decode": v1.PoolTarget(role="decode", replicas=decode),
    }
    return v1.ScalingDecision(
        time=at or datetime.now(UTC), deployment=CHAT, decision_id=number, incarnation="i", epoch=1, pools=pools,
        num_prefill_workers=2, num_decode_workers=decode, reasons=(v1.Reason(code="sla", text=text),),
    )  # fmt: skip


def scaled(number: int, ready: int, at: datetime | None = None, **changes: Any) -> v1.ScalingAck:
    """The connector's answer: how many decode replicas serve."""
    fields: dict[str, Any] = {
        "time": at or datetime.now(UTC), "deployment": CHAT, "decision_id": number, "scaled_decision_id": number,
        "incarnation": "i", "status": v1.AckStatus.APPLIED, "replicas": {"prefill": 2, "decode": ready},
    }  # fmt: skip
    return v1.ScalingAck(**{**fields, **changes})


def record(number: int, at: datetime | None = None, **changes: Any) -> v1.PlanRecord:
    """A tick that wants 9 decode replicas and grants 6, because of the budget."""
    chain = (
        v1.Reason(code="sla", text="9 decode replicas serve 12 requests/s in time"),
        v1.Reason(code="power_budget", text="10000 W are all that GPUs may draw"),
    )
    decode = v1.PoolRecord(
        role="decode", current=6, wanted=9, granted=6, cap_watts=400.0, utilisation=0.8, chain=chain, values=(9, 6)
    )
    prefill = v1.PoolRecord(
        role="prefill", current=2, wanted=2, granted=2, cap_watts=600.0,
        chain=(v1.Reason(code="sla", text="2 prefill replicas serve 12 requests/s in time"),), values=(2,),
    )  # fmt: skip
    draws = {
        name: v1.PoolPowerRecord(assumed_p_u_watts=600.0, p_u_watts=600.0, drawn_watts=watts, expected_watts=watts)
        for name, watts in (("prefill", 450.0), ("decode", 350.0))
    }
    fields: dict[str, Any] = {
        "time": at or datetime.now(UTC), "deployment": CHAT, "site": SITE, "decision_id": number,
        "scaled_decision_id": number,
        "observed": {"interval_s": 10.0, "requests": 100.0, "osl_tokens": 200.0, "ttft_ms": 321.0, "itl_ms": 31.0},
        "targets": {"ttft_ms": 500.0, "itl_ms": 30.0},
        "forecasts": {"request_rate_per_s": v1.ForecastRecord(mean=9, lower=8, upper=12, horizon_s=60, model="blend")},
        "pools": {"prefill": prefill, "decode": decode}, "gpu_power": draws,
        "expected": {"joules_per_token": 1.5},
        "budget_watts": 10_000.0, "charged_watts": 9000.0, "enforced_watts": 6400.0, "draw_watts": 6240.0,
    }  # fmt: skip
    return v1.PlanRecord(**{**fields, **changes})


def lease(holder: str = "planner-a", at: datetime | None = None) -> v1.Lease:
    """A lease of thirty seconds, as long as a test may take between two of them."""
    return v1.Lease(time=at or datetime.now(UTC), holder=holder, ttl_s=30.0)


def site(nodes: int = 2) -> Iterator[v1.Message]:
    """All of the site as of now, oldest first."""
    now = datetime.now(UTC)
    for index in range(nodes):
        yield power(f"node-{index}", 0, now - timedelta(seconds=3))
        yield report(f"node-{index}")
    yield decision(0, 4, now - timedelta(seconds=60), text="4 for the morning")
    yield scaled(0, 4, now - timedelta(seconds=59))
    yield record(0, now - timedelta(seconds=60))
    yield decision(1, 6, now - timedelta(seconds=20))
    yield scaled(1, 6, now - timedelta(seconds=19))
    for ago in (20, 10, 0):
        yield record(1, now - timedelta(seconds=ago))


def subject_of(bus: Bus, message: v1.Message) -> str:
    """The subject under which its sender publishes the message."""
    subjects = bus.subjects
    match message:
        case v1.NodeTelemetry():
            return subjects.telemetry_node(message.node)
        case v1.PlanRecord():
            return subjects.telemetry_plan(message.deployment)
        case v1.ScalingDecision():
            return subjects.decision_scaling(message.deployment)
        case v1.ScalingAck():
            return subjects.ack_scaling(message.deployment)
        case v1.PowerDecision():
            return subjects.decision_power(message.node)
        case v1.PowerAck():
            return subjects.ack_power(message.node)
        case v1.BudgetChange():
            return subjects.control_budget(message.site)
    raise AssertionError(f"no subject for a {message.type}")


async def put(bus: Bus, *messages: v1.Message) -> None:
    """Publish messages in order."""
    for message in messages:
        await publish(bus, subject_of(bus, message), message, f"seen-{next(_numbers)}")
    await asyncio.sleep(0)
