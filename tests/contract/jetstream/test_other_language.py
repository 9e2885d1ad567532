"""A client in JavaScript, with Node's own modules only, takes and completes decisions by the contract alone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import jsonschema
import pytest

from bus_schemas import v1
from bus_schemas.export import generate
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last_raw
from tests.contract.bus import bench, scaling, until

CLIENT = Path(__file__).with_name("orchestrator.mjs")
MOST_LINES = 40


@asynccontextmanager
async def orchestrator(bus: Bus, deployment: str) -> AsyncIterator[None]:
    """The client's process, killed afterwards."""
    node = shutil.which("node")
    if node is None:
        if os.environ.get("WATTSCALE_REQUIRE_PARTS"):
            pytest.fail("node is missing: install nodejs")
        pytest.skip("node is missing: install nodejs")
    host, _, port = bus.settings.servers[0].removeprefix("nats://").rpartition(":")
    process = await asyncio.create_subprocess_exec(node, str(CLIENT), host, port, deployment)
    try:
        yield
        assert process.returncode is None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_decisions_are_completed_also_those_of_before_the_client_and_after_its_death() -> None:
    async with bench() as (_, bus):
        subject = bus.subjects.decision_scaling("prod.llama")
        schema = json.loads((generate.HERE / "schemas" / "scaling_ack.schema.json").read_text())

        async def completed(number: int, decode: int) -> None:
            async def found() -> dict[str, object] | None:
                raw = await last_raw(bus, bus.subjects.ack_scaling("prod.llama"))
                body = json.loads(raw.data) if raw is not None else {}
                return body if body.get("scaled_decision_id") == number else None

            body = await until(found, f"decision {number} to be completed")
            jsonschema.validate(body, schema)
            assert body is not None
            ack = v1.ScalingAck.model_validate(body)
            assert (ack.status, ack.replicas) == (v1.AckStatus.APPLIED, {"prefill": 1, "decode": decode})

        await publish(bus, subject, scaling("prod.llama", 0, decode=3), "first")
        async with orchestrator(bus, "prod.llama"):
            await completed(0, 3)
            await publish(bus, subject, scaling("prod.llama", 1, decode=5), "second")
            await completed(1, 5)
        await publish(bus, subject, scaling("prod.llama", 2, decode=1), "third")
        async with orchestrator(bus, "prod.llama"):
            await completed(2, 1)


def test_the_client_is_short() -> None:
    lines = [line for line in CLIENT.read_text().splitlines() if line.strip() and not line.startswith("//")]
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 160
