"""`wattscale profile` as a process against engines that it starts: one command, true times, files that a planner
starts on, and on which it holds the targets of real workers."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from planner.adapters.profiles import load_profile
from planner.profiler.online.measurement_log import FILE
from planner.profiler.results.profile_files import write_profile
from tests.acceptance.real_run import write_trace
from tests.acceptance.up_process import outsider, up
from tests.command_line import process, run
from tests.contract.bus import until
from tests.unit.planner.profiler.rows import TARGETS as TABLE_TARGETS
from tests.unit.planner.profiler.rows import profiled

ROOT = Path(__file__).parents[3]
LIMITS = ("--max-model-len", "1024", "--max-kv-tokens", "6000")
TARGETS = ("--isl", "400", "--osl", "40", "--ttft", "900", "--itl", "60")


def config(folder: Path, times: dict[str, float], *more: str) -> Path:
    """The file of --config: how the small engine is started."""
    words = [word for name, value in times.items() for word in (f"--{name.replace('_', '-')}", f"{value}")]
    command = [sys.executable, "-m", "deploy.cli.main", "engine", "--port", "{port}", "--model", "{model}"]
    file = folder / "engine.yaml"
    file.write_text(json.dumps({"model": "demo", "command": command, "args": [*words, *LIMITS, *more]}))
    return file


def words(folder: Path, engine: Path, *more: str) -> tuple[str, ...]:
    """The command that profiles an engine into ``folder / out``."""
    start = ("profile", "--backend", "vllm", "--config", str(engine), "--tp", "1", "--quick", *TARGETS)
    return (*start, "--max-in-flight", "8", "--output-dir", str(folder / "out"), *more)


async def decided(folder: Path, interval: dict[str, float]) -> dict[str, int]:
    """The counts that a planner decides on a written profile."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", "planner", "decide", "--profile", str(folder)),
        *("--interval=60", "--max-gpu-budget=64", *TARGETS),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await started.communicate(json.dumps(interval).encode() + b"\n")
    assert started.returncode == 0
    found: dict[str, int] = json.loads(out)
    return found


def times_by(parameters: tuple[float, ...]) -> tuple[float, ...]:
    """TTFT of a short and a long prompt, ITL of one request and of eight that fill the KV cache; milliseconds."""
    prefill_base, per_token, itl_base, per_request, per_kv_token = parameters
    ttft = (prefill_base + per_token * isl for isl in (100, 1000))
    return *ttft, *(itl_base + per_request * n + per_kv_token * kv for n, kv in ((1, 100), (8, 5700)))


TTFT_MS, ITL_MS = 4000.0, 600.0
RATE_PER_S = 2.4
"""A prompt of 400 tokens takes more than half a second: one worker serves less than two of them in a second."""
IN_A_ROW = 3


def held(plans: list[dict[str, Any]]) -> bool:
    """Whether the newest plans saw load, and both latencies within their targets."""
    newest = [plan["observed"] for plan in plans[-IN_A_ROW:]]
    return len(newest) == IN_A_ROW and all(
        one.get("requests", 0) > 0
        and one.get("ttft_ms", TTFT_MS + 1) <= TTFT_MS
        and one.get("itl_ms", ITL_MS + 1) <= ITL_MS
        for one in newest
    )


async def holds_its_targets(profile: Path, folder: Path) -> str:
    """Run workers with the profile's times under a planner that sizes by it, until it holds the targets.

    One worker cannot carry the load. Returns what was measured.
    """
    write_trace(folder / "trace.csv", rate_per_s=RATE_PER_S, isl=400, osl=8)
    words = ("--real-workers", "--startup-s", "0.5", "--profile", str(profile), "--trace", str(folder / "trace.csv"))
    async with up(folder, *words, "--ttft-ms", str(TTFT_MS), "--itl-ms", str(ITL_MS)) as site:
        await site.listening()
        async with outsider(site.url) as outside:
            await until(lambda: outside.of("ack.scaling"), "a decision is acknowledged", 120)
            await until(lambda: held(outside.of("telemetry.plan")), "the targets are held", 180)
            counts = outside.of("decision.scaling")[-1]["pools"]["aggregated"]["replicas"]
        site.process.send_signal(signal.SIGINT)
        summary = await site.summary()
    assert counts > 1
    assert summary["good_requests"] > 0
    assert summary["max_sum_of_caps_watts"] <= summary["budget_watts"]
    return f"{counts} workers, {summary['good_requests']} of {summary['requests']} good in {summary['load_seconds']} s"


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.xdist_group("up-profile")
async def test_one_command_finds_the_engines_times_and_a_planner_on_them_holds_the_targets(tmp_path, record_property):
    rng = random.Random(20261126)
    drawn = {
        "prefill_base_ms": rng.uniform(400, 600),
        "prefill_ms_per_token": rng.uniform(0.3, 0.5),
        "itl_base_ms": rng.uniform(8, 12),
        "itl_ms_per_request": rng.uniform(1.0, 1.5),
        "itl_ms_per_kv_token": rng.uniform(0.0015, 0.003),
    }
    done = await process(*words(tmp_path, config(tmp_path, drawn)), timeout_s=300)
    assert done.code == 0, done.err
    assert "Suggested prefill TP:1 (TTFT " in done.out
    assert "Suggested decode TP:1 (ITL " in done.out
    assert "Best goodput per watt, decode: TP:1" in done.out
    fits = json.loads((tmp_path / "out" / "meta.json").read_text())["fits"]
    prefill, decode = fits["prefill"], fits["decode"]
    found = (
        *(prefill["base_ms"], prefill["ms_per_token"]),
        *(decode["base_ms"], decode["ms_per_request"], decode["ms_per_kv_token"]),
    )
    put = tuple(drawn.values())
    print([f"{got / wanted - 1:+.1%}" for got, wanted in zip(found, put, strict=True)])
    # Prefill has the engine's own clock. How ITL divides into decode's parameters is asserted where no busy machine
    # stretches a clock (test_profiling_run.py); here the times that they give together are.
    assert found[:2] == pytest.approx(put[:2], rel=0.05)
    assert times_by(found) == pytest.approx(times_by(put), rel=0.05)
    assert load_profile(tmp_path / "out").dropped == ()
    little = await decided(tmp_path / "out", {"num_req": 10, "isl": 400, "osl": 40, "ttft_ms": 650, "itl_ms": 12})
    much = await decided(tmp_path / "out", {"num_req": 600, "isl": 400, "osl": 40, "ttft_ms": 650, "itl_ms": 12})
    assert little["num_prefill"] == 1
    assert much["num_prefill"] > 2
    assert much["num_decode"] >= little["num_decode"] >= 1
    record_property("measured", f"on a measured profile: {await holds_its_targets(tmp_path / 'out', tmp_path)}")


FAST = {
    "prefill_base_ms": 20,
    "prefill_ms_per_token": 0.01,
    "itl_base_ms": 2,
    "itl_ms_per_request": 0.1,
    "itl_ms_per_kv_token": 0.0001,
}


async def test_a_killed_profiler_takes_its_engine_with_it_and_the_next_run_goes_on(tmp_path):
    engine = config(tmp_path, FAST)
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", *words(tmp_path, engine)),
        cwd=ROOT,
        stderr=asyncio.subprocess.DEVNULL,
    )
    log = tmp_path / "out" / FILE
    try:
        await until(lambda: log.exists() and log.read_bytes().count(b'"measurement"') > 4, "some points are measured")
    finally:
        started.kill()
        await started.wait()
    port = int((tmp_path / "out" / "engine_tp1.log").read_text().split()[2].rpartition(":")[2])
    await until(lambda: not listens(port), "the engine ended")
    kept = log.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    done = await process(*words(tmp_path, engine), timeout_s=300)
    assert done.code == 0, done.err
    assert log.read_bytes().startswith(kept)
    assert load_profile(tmp_path / "out").decode is not None
    other = await process(*words(tmp_path, engine, "--max-in-flight", "9"))
    assert other.code == 1
    assert "holds measurements of another run (max_in_flight 8 there, 9 now)" in other.one_line()


async def test_sigterm_ends_the_run_and_its_engine(tmp_path):
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", *words(tmp_path, config(tmp_path, FAST))),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    log = tmp_path / "out" / FILE
    try:
        await until(lambda: log.exists() and b'"measurement"' in log.read_bytes(), "a point is measured")
        started.send_signal(signal.SIGTERM)
        _, err = await asyncio.wait_for(started.communicate(), 60)
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
    assert started.returncode == 130
    assert b"interrupted; the same command goes on" in err
    port = int((tmp_path / "out" / "engine_tp1.log").read_text().split()[2].rpartition(":")[2])
    assert not listens(port)


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ((), "give --endpoint URL for an engine that runs, or --backend and --config"),
        (("--endpoint", "http://127.0.0.1:9", "--backend", "vllm"), "give --endpoint URL for an engine that runs"),
        (("--endpoint", "localhost"), "--endpoint: it is not an address"),
        (("--endpoint", "http://a:b@localhost:1"), "it holds credentials; put the key into WATTSCALE_PROFILE_API_KEY"),
        (("--endpoint", "http://127.0.0.1:9", "--tp", "1,2"), "--tp: an engine that runs has one TP size"),
        (("--endpoint", "http://127.0.0.1:9", "--config", "x"), "--config goes with --backend"),
        (("--backend", "vllm"), "--backend vllm: --config FILE is missing"),
        (("--backend", "vllm", "--config", "x", "--model", "y"), "--model goes with --endpoint"),
        (("--backend", "vllm", "--config", "/no/such", "--tp", "1"), "--config /no/such: cannot be read"),
        (("--endpoint", "http://127.0.0.1:9", "--gpus", "0;1"), "GPUs are whole numbers from 0 to 1024"),
        (("--endpoint", "http://127.0.0.1:9", "--gpus", "0"), "no GPU on this node"),
        (("--backend", "vllm", "--config", "x"), "no GPU on this node"),
        (("--endpoint", "http://127.0.0.1:9", "--system", "h200_sxm"), "--system goes with --offline"),
        (("--endpoint", "http://127.0.0.1:9", "--moe-parallel", "tp"), "--moe-parallel goes with --offline"),
        (("--offline", "--model", "m", "--system", "h200_sxm"), "--offline: --backend is missing"),
        (("--offline", "--gpus", "0"), "--gpus does not go with --offline"),
        (("--offline", "--endpoint", "http://127.0.0.1:9"), "--endpoint does not go with --offline"),
        (("--compare", "a", "b"), "--output-dir does not go with --compare"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(tmp_path, given, line):
    config = tmp_path / "engine.yaml"
    config.write_text("model: m\n")
    given = [str(config) if value == "x" else value for value in given]
    done = run("profile", *given, "--output-dir", str(tmp_path / "out"))
    assert done.code == 2
    assert line in done.err.splitlines()[-1]


def test_without_the_package_an_estimate_names_how_to_have_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiconfigurator_core", None)
    words = ("--offline", "--model", "m", "--system", "h200_sxm", "--backend", "vllm", "--output-dir", str(tmp_path))
    done = run("profile", *words)
    assert done.code == 2
    assert (
        "--offline needs the package aiconfigurator-core: pip install 'wattscale[profile-offline]'" in done.one_line()
    )


def test_the_folder_for_the_files_must_be_named():
    assert "--output-dir DIR is missing" in run("profile", "--endpoint", "http://127.0.0.1:9").one_line()


def test_two_profiles_are_compared_in_one_table(tmp_path):
    write_profile(tmp_path, profiled(), TABLE_TARGETS, {"model": "demo"})
    done = run("profile", "--compare", str(tmp_path), str(tmp_path))
    assert done.code == 0
    assert len([line for line in done.out.splitlines() if line.endswith("+0.0%")]) == 13
    assert "decode: ITL of 9 points differs by 0.0% in the median, by 0.0% at most" in done.out
    nowhere = run("profile", "--compare", str(tmp_path), "/nowhere")
    assert nowhere.code == 2
    assert "--compare: /nowhere: no such folder" in nowhere.one_line()


def test_an_endpoint_that_does_not_answer(tmp_path):
    done = run("profile", "--endpoint", "http://127.0.0.1:9", "--output-dir", str(tmp_path))
    assert done.code == 1
    assert "http://127.0.0.1:9/v1/models: no answer; is this the address of an OpenAI server" in done.one_line()


def test_an_engine_that_ends_at_once_is_named_with_its_last_words(tmp_path):
    file = tmp_path / "engine.yaml"
    file.write_text(json.dumps({"model": "m", "command": ["sh", "-c", "echo no memory left; exit 3", "{port}"]}))
    done = run("profile", "--backend", "vllm", "--config", str(file), "--tp", "1", "--output-dir", str(tmp_path))
    assert done.code == 1
    assert "sh ended with 3 before it served: no memory left" in done.err.splitlines()[-1]
