"""The page for consumers in any language does what it says: its bytes are sent to a real server, its example is run."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.publisher import Outgoing, Publisher
from bus_schemas.jetstream.reader import last
from bus_schemas.subjects import Subjects
from tests.contract.bus import bench, until

ROOT = Path(__file__).resolve().parents[3]
README = ROOT / "bus_schemas" / "README.md"
DEPLOYMENT = "prod-llama"


def block(name: str) -> str:
    """The code block that follows ``<!-- name -->``."""
    found = re.search(rf"<!-- {name} -->\n```\w*\n(.*?)\n```", README.read_text(), re.DOTALL)
    assert found, f"no block {name} in the page"
    return found.group(1)


async def decide(bus: Bus, deployment: str = DEPLOYMENT) -> None:
    """The decision of the page."""
    message = v1.ScalingDecision(
        time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        deployment=deployment,
        decision_id=4,
        incarnation="a1b2",
        epoch=1,
        num_prefill_workers=1,
        num_decode_workers=2,
        pools={"decode": v1.PoolTarget(role="decode", replicas=2)},
    )
    leadership = Leadership(bus, "planner-0", 30)
    await leadership.acquire()
    item = Outgoing(bus.subjects.decision_scaling(deployment), message, f"scaling-{deployment}-a1b2-1-4")
    await Publisher(bus, leadership).publish_batch([item])


def masked(line: str) -> str:
    """Without what differs from run to run: the time of storage, and lengths that hold it."""
    line = re.sub(r"Nats-Time-Stamp: \S+", "Nats-Time-Stamp: <time>", line)
    return re.sub(r"^HMSG (\S+) (\d+) \d+ \d+", r"HMSG \1 \2 <lengths>", line)


async def converse(url: str, script: list[str]) -> list[str]:
    """Send the lines marked ``>``, read as many as are marked ``<`` between them; returns the lines of both sides."""
    host, port = url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    assert (await reader.readline()).startswith(b"INFO ")
    said = []
    for line in script:
        if line.startswith(">"):
            writer.write(line[2:].encode() + b"\r\n")
            await writer.drain()
            said.append(line)
        else:
            heard = await asyncio.wait_for(reader.readline(), 60)
            said.append(f"< {masked(heard.decode().rstrip())}".rstrip())
    writer.close()
    return said


async def test_the_worked_exchange_byte_by_byte() -> None:
    script = block("exchange").splitlines()
    async with bench(name="exchange") as (server, bus):
        bus.settings.__dict__["name"] = "planner-0"
        await decide(bus)
        said = await converse(server.url, script)
        assert said == [f"{line[:2]}{masked(line[2:])}".rstrip() for line in script]
        found = await last(bus, bus.subjects.ack_scaling(DEPLOYMENT))
        assert found is not None
        assert isinstance(found.message, v1.ScalingAck)
        assert (found.message.scaled_decision_id, found.message.status) == (4, v1.AckStatus.APPLIED)


async def completes(bus: Bus, deployment: str, script: Path, *arguments: str) -> None:
    """Run an example until the decision of the page is acknowledged as carried out; it must go on running after it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), *arguments), cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    try:

        async def completed() -> bool:
            found = await last(bus, bus.subjects.ack_scaling(deployment))
            return (
                found is not None and isinstance(found.message, v1.ScalingAck) and found.message.scaled_decision_id == 4
            )

        await until(completed, "the example's acknowledgement")
        assert process.returncode is None
    finally:
        process.terminate()
        await process.wait()


async def test_the_example_orchestrator_runs(tmp_path: Path) -> None:
    source = block("orchestrator")
    assert len(source.splitlines()) <= 20
    async with bench() as (server, bus):
        await decide(bus)
        script = tmp_path / "orchestrator.py"
        script.write_text(source)
        await completes(bus, DEPLOYMENT, script, server.url, DEPLOYMENT)


async def test_the_front_pages_example_runs(tmp_path: Path) -> None:
    (source,) = re.findall(r"```python\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert source.count("nats://127.0.0.1:4222") == source.count('"default-demo"') == 1
    async with bench() as (server, bus):
        script = tmp_path / "orchestrator.py"
        script.write_text(source.replace("nats://127.0.0.1:4222", server.url))
        await decide(bus, "default-demo")
        await completes(bus, "default-demo", script)


def test_the_example_of_a_shortage_by_class_is_the_stored_message() -> None:
    stored = ROOT / "tests" / "contract" / "messages" / "corpus" / "v1" / "plan_record.classes.json"
    assert json.loads(block("shed by class")) == json.loads(stored.read_bytes())


def test_every_subject_and_message_is_named() -> None:
    text = README.read_text()
    for cls in v1.MESSAGES:
        assert f"`{cls.__name__}`" in text, cls.__name__
    subjects = Subjects()
    for wildcard in (subjects.all_of("decision", "scaling"), subjects.all_of("telemetry", "plan")):
        assert wildcard.removesuffix(".>") in text
