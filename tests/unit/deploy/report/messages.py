"""A small site's messages, stored at given seconds of one hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bus_schemas import codec, v1
from deploy.report.journal import Entry
from deploy.report.usage import Period

START = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOUR = Period(START, START + timedelta(hours=1))


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


class Journal:
    """Stores messages as the bus would: one stream a kind, sequences from 1."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, stream: str, second: float, message: v1.Message) -> None:
        number = 1 + sum(entry.stream == stream for entry in self.entries)
        who = getattr(message, "node", getattr(message, "deployment", "row"))
        self.entries.append(Entry(stream, number, f"{stream.lower()}.{who}", at(second), codec.encode(message)))

    def caps(self, second: float, node: str, watts: float, budget: float, **fields: Any) -> None:
        """A power decision for one GPU of ``node``."""
        fields = {"decision_id": len(self.entries), "epoch": 1, **fields}
        cap = v1.GpuCap(gpu=f"GPU-{node}", cap_watts=watts, fallback_watts=200.0)
        decision = v1.PowerDecision(
            time=at(second),
            node=node,
            incarnation="one",
            valid_for_s=30.0,
            caps=(cap,),
            site="row",
            budget_watts=budget,
            **fields,
        )
        self.add("DECISIONS", second, decision)

    def in_force(self, second: float, node: str, watts: float | None, **fields: Any) -> None:
        """The answer of ``node``: its GPU's limit as read back."""
        gpu = v1.GpuInForce(gpu=f"GPU-{node}", enforced_watts=watts, **fields)
        ack = v1.PowerAck(
            time=at(second),
            node=node,
            decision_id=1,
            applied_decision_id=1,
            epoch=1,
            status=v1.AckStatus.APPLIED,
            gpus=(gpu,),
        )
        self.add("ACKS", second, ack)

    def budget(self, second: float, watts: float, **fields: Any) -> None:
        self.add("CONTROL", second, v1.BudgetChange(time=at(second), site="row", budget_watts=watts, **fields))

    def tick(self, second: float, *, interval_s: float = 10.0, **fields: Any) -> None:
        """A plan record: 100 requests, 80 of them with the first token in time and 90 with the others."""
        seen = {"interval_s": interval_s, "requests": 100.0, "osl_tokens": 50.0, "ttft_ms": 600.0, "itl_ms": 20.0}
        content: dict[str, Any] = {
            "deployment": "chat",
            "site": "row",
            "decision_id": 0,
            "observed": seen,
            "targets": {"ttft_ms": 500.0, "itl_ms": 40.0},
            "good": {
                "prompts": v1.GoodShareRecord(measured=0.8),
                "answers": v1.GoodShareRecord(measured=0.9),
            },
            "pools": {
                "prefill": v1.PoolRecord(role="prefill", current=1, wanted=1, granted=1),
                "decode": v1.PoolRecord(role="decode", current=2, wanted=2, granted=2),
            },
            "gpu_power": {
                "prefill": v1.PoolPowerRecord(assumed_p_u_watts=600, p_u_watts=600, drawn_watts=500),
                "decode": v1.PoolPowerRecord(assumed_p_u_watts=600, p_u_watts=600, drawn_watts=300),
            },
        }
        self.add("PLANS", second, v1.PlanRecord(time=at(second), **{**content, **fields}))
