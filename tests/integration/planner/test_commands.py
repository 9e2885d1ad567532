"""The planner's commands as processes: run and killed, checked, deciding offline, showing its settings."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bus_schemas import v1
from bus_schemas.jetstream.publisher import publish
from deploy.nats.embedded import EmbeddedServer
from tests.contract.bus import bench, until
from tests.free_ports import free_port
from tests.integration.planner.stage import MODEL, NAME, PREFILL, Stage, staged
from tests.shared_data import shared
from tests.unit.planner.adapters.test_profiles import write as write_profile

ROOT = Path(__file__).resolve().parents[3]
INTERVALS = [
    {"num_req": 600, "isl": 1000, "osl": 200, "ttft_ms": 80, "itl_ms": 12},
    {"num_req": 6000, "isl": 1000, "osl": 200, "ttft_ms": 90, "itl_ms": 14},
    {"isl": 1000},
    {"num_req": 6000, "isl": 1000, "osl": 200, "ttft_ms": 90, "itl_ms": 14},
]


async def wattscale(*args: str, stdin: str = "") -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deploy.cli.main",
        *args,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def settings(folder: Path, stage: Stage | None = None, **changes: Any) -> Path:
    profile = folder / "profile"
    profile.mkdir(exist_ok=True)
    write_profile(profile)
    content: dict[str, Any] = {
        "interval_s": 0.5,
        "load_time_scale": 30.0,
        "lease": {"ttl_s": 1},
        "health": {"port": 0},
        "sites": {"row-1": {"budget_watts": 4000, "lease_s": 3, "settle_s": 0.2}},
        "deployments": {
            str(NAME): {
                "site": "row-1",
                "model": MODEL,
                "profile": str(profile),
                "ttft_ms": 500,
                "itl_ms": 30,
                "pools": {"prefill": {"max_replicas": 4}, "decode": {"max_replicas": 4}},
                "metrics": {"urls": [stage.metrics.url if stage else "http://127.0.0.1:1/metrics"]},
            }
        },
    }
    if stage is not None:
        content["bus"] = {"servers": [stage.server.url]}
    path = folder / "planner.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


@asynccontextmanager
async def planner_process(file: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deploy.cli.main",
        "planner",
        "run",
        "-c",
        str(file),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_planner_process_is_killed_and_its_successor_goes_on(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        file = settings(tmp_path, stage)
        stage.load_rps = 20.0
        async with planner_process(file):
            await until(lambda: len(stage.fleet.scaling) >= 1, "a decision of the first process")
        known = len(stage.fleet.scaling)
        last_epoch = max((decision.epoch for decision in stage.fleet.power), default=0)
        stage.load_rps = 60.0
        async with planner_process(file) as second:
            await until(lambda: len(stage.fleet.workers[PREFILL]) >= 2, "workers after the kill")
            await until(lambda: any(d.epoch > last_epoch for d in stage.fleet.power), "power under a new epoch")
            second.send_signal(signal.SIGTERM)
            _, err = await asyncio.wait_for(second.communicate(), 60)
            assert second.returncode == 0
        lines = [json.loads(line) for line in err.decode().splitlines()]
        assert any(line["message"] == "leading" for line in lines)
        ids = [decision.decision_id for decision in stage.fleet.scaling]
        assert ids == list(range(len(ids)))
        assert len(ids) >= known
        assert stage.fleet.enforced_watts <= 4000


async def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        port = stage.metrics.url.split(":")[2].split("/")[0]
        taken = settings(tmp_path, stage, health={"port": int(port)})
        code, _, err = await wattscale("planner", "run", "-c", str(taken))
        assert code == 1
        assert "health.port" in err.splitlines()[-1]


async def test_run_waits_for_a_bus_that_is_not_there_yet(tmp_path: Path) -> None:
    port, page = free_port(), free_port()
    file = settings(tmp_path, bus={"servers": [f"nats://127.0.0.1:{port}"]}, health={"host": "127.0.0.1", "port": page})
    log: list[dict[str, Any]] = []

    async def ready() -> tuple[int, str]:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{page}/readyz") as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientError:
            return 0, ""

    async with planner_process(file) as process:
        assert process.stderr is not None

        async def read() -> None:
            async for line in process.stderr:  # type: ignore[union-attr]
                log.append(json.loads(line))  # noqa: PERF401  # as they come

        reading = asyncio.create_task(read())

        async def waits() -> bool:
            code, text = await ready()
            return code == 503 and f"no connection to the bus: cannot reach NATS at nats://127.0.0.1:{port}" in text

        await until(waits, "readiness to name the missing bus")
        await asyncio.sleep(2.0)  # some attempts, each of which could write a line
        waiting = [line["message"] for line in log if "cannot reach NATS" in line["message"]]
        assert len(waiting) == 1, log
        async with EmbeddedServer(tmp_path / "nats", port):

            async def well() -> bool:
                return (await ready())[0] == 200

            await until(well, "readiness")
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)
        assert process.returncode == 0
        await reading


async def test_a_sigterm_while_waiting_for_the_bus_ends_at_once(tmp_path: Path) -> None:
    file = settings(tmp_path, bus={"servers": [f"nats://127.0.0.1:{free_port()}"]})
    async with planner_process(file) as process:
        assert process.stderr is not None
        while b"cannot reach NATS" not in await asyncio.wait_for(process.stderr.readline(), 60):
            pass
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)
        assert process.returncode == 0


async def test_check_says_ok_or_one_line_a_problem(tmp_path: Path) -> None:
    file = settings(tmp_path)
    code, out, err = await wattscale("planner", "check", "-c", str(file), "--backend", "vllm")
    assert (code, err) == (0, "")
    assert out.startswith("note: backend: not needed")
    assert f"ok: {NAME}: TTFT 500 ms" in out
    bad = yaml.safe_load(file.read_text())
    bad["deployments"][NAME] |= {"site": "row-2", "predictor": "oracle"}
    file.write_text(yaml.safe_dump(bad))
    code, out, err = await wattscale("planner", "check", "-c", str(file))
    assert code == 2
    assert len(err.splitlines()) == 2
    assert all(line.startswith("wattscale: deployments.prod-chat.") for line in err.splitlines())


async def test_check_counts_the_gpus_on_the_bus_where_expected_gpus_is_not_set(tmp_path: Path) -> None:
    away = {"servers": ["nats://127.0.0.1:1"], "connect_timeout_s": 0.2}
    _, out, _ = await wattscale("planner", "check", "-c", str(settings(tmp_path, bus=away)))
    assert (
        "note: site row-1: set expected_gpus, or a GPU that never reported is charged nothing; no bus answered" in out
    )
    async with bench() as (server, bus):
        for node, count in (("n1", 2), ("n2", 3)):
            gpus = tuple(
                v1.GpuTelemetry(gpu=f"{node}-{n}", default_watts=700, min_watts=200, max_watts=700)
                for n in range(count)
            )
            report = v1.NodeTelemetry(time=datetime.now(UTC), node=node, gpus=gpus)
            await publish(bus, bus.subjects.telemetry_node(node), report, f"telemetry-{node}")
        here = {"servers": [server.url]}
        code, out, err = await wattscale("planner", "check", "-c", str(settings(tmp_path, bus=here)))
        assert (code, err) == (0, "")
        assert "note: site row-1: set expected_gpus" in out
        assert "5 are seen on the bus now" in out
        known = {"row-1": {"budget_watts": 4000, "expected_gpus": 5}}
        code, out, err = await wattscale("planner", "check", "-c", str(settings(tmp_path, bus=here, sites=known)))
        assert (code, err) == (0, "")
        assert "expected_gpus" not in out


async def test_config_show_says_where_each_value_came_from(tmp_path: Path) -> None:
    file = settings(tmp_path, prometheus={"bearer_token": "s3cret"})
    code, out, _ = await wattscale("config", "show", "-c", str(file), "--itl", "25", "--set", "log.level=debug")
    assert code == 0
    assert "s3cret" not in out
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert rows["deployments.prod-chat.itl_ms"].endswith("25.0  (flag --itl)")
    assert rows["log.level"].endswith('"debug"  (flag --set log.level)')
    assert rows["interval_s"].endswith(f"0.5  ({file})")
    assert rows["kalman.r"].endswith("(default)")


async def test_decide_prints_one_decision_a_line_and_holds_on_missing(tmp_path: Path) -> None:
    file = settings(tmp_path)
    lines = "\n".join(json.dumps(interval) for interval in INTERVALS)
    code, out, err = await wattscale("planner", "decide", "-c", str(file), "--interval", "60", stdin=lines)
    assert code == 0, err
    decisions = [json.loads(line) for line in out.splitlines()]
    assert len(decisions) == len(INTERVALS)
    assert decisions[1]["num_prefill"] > decisions[0]["num_prefill"]
    kept = ("num_prefill", "num_decode")
    assert [decisions[2][key] for key in kept] == [decisions[1][key] for key in kept]
    assert "requests" in decisions[2]["missing"]
    code, _, err = await wattscale("planner", "decide", "-c", str(file), stdin='{"num_reqs": 1}\n')
    assert code == 2
    assert "standard input, line 1: unknown keys num_reqs" in err


async def test_decide_in_classic_mode_wants_what_dynamo_0_9_wanted() -> None:
    """Flags only, no file; the first decision has no history to differ by."""
    recorded = json.loads(shared("dynamo_decisions/h200_8b_ramp.json").read_text())
    code, out, err = await wattscale(
        "planner",
        "decide",
        "--profile",
        str(shared("profiles/dynamo_h200_8b_fp8_tp1p_tp1d")),
        *("--interval", "60", "--ttft", "500", "--itl", "50", "--load-predictor", "constant"),
        *("--set", "deployments.*.sizing=classic"),
        stdin=json.dumps(recorded["intervals"][0]),
    )
    assert code == 0, err
    decision, theirs = json.loads(out), recorded["decisions"]["0.9.1"][0]
    assert (decision["num_prefill"], decision["num_decode"]) == (theirs["num_prefill"], theirs["num_decode"])


async def test_the_health_server_of_the_process_answers(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        port = free_port()
        file = settings(tmp_path, stage, health={"port": port})
        async with planner_process(file), aiohttp.ClientSession() as session:
            answers: dict[str, object] = {}
            async with asyncio.timeout(60.0):
                while len(answers) < 3:
                    for path in ("/livez", "/readyz", "/metrics"):
                        try:
                            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                                answers[path] = response.status
                        except aiohttp.ClientError:
                            await asyncio.sleep(0.05)
            assert answers == {"/livez": 200, "/readyz": 200, "/metrics": 200}


async def test_a_leader_that_slept_past_its_lease_is_refused_and_steps_down(tmp_path: Path) -> None:
    """Two real processes; the first is stopped by the system, wakes up believing that it leads, and changes nothing."""
    async with staged(tmp_path) as stage:
        stage.load_rps = 20.0
        file = settings(tmp_path, stage)
        async with planner_process(file) as sleeper:
            await until(lambda: len(stage.fleet.power) >= 2, "caps by the first process")
            sleeper.send_signal(signal.SIGSTOP)
            first = stage.fleet.power[-1].epoch
            async with planner_process(file):
                await until(lambda: stage.fleet.power[-1].epoch > first, "caps by the second process")
                stage.load_rps = 60.0
                sleeper.send_signal(signal.SIGCONT)
                known = len(stage.fleet.power)
                await until(lambda: len(stage.fleet.power) >= known + 3, "renewals by the second process")
            sleeper.send_signal(signal.SIGTERM)
            _, err = await asyncio.wait_for(sleeper.communicate(), 60)
        epochs = [decision.epoch for decision in stage.fleet.power]
        assert epochs == sorted(epochs), "nothing of the sleeper's was stored after it woke up"
        said = [json.loads(line)["message"] for line in err.decode().splitlines()]
        assert any(line.startswith("no longer leading") for line in said)
        ids = [decision.decision_id for decision in stage.fleet.scaling]
        assert ids == list(range(len(ids)))
