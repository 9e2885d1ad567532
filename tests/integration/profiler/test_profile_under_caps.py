"""`wattscale profile --caps` as a process: limits are put back however it ends, judged on the library with NVML's ABI;
and one command finds what caps cost the small HTTP engine."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TextIO

import pytest

from agent.runtime.boot import BOOT_ID
from deploy.engine.shared_gpu import SharedGpu, make_shared_gpu
from planner.adapters.profiles import load_profile
from planner.profiler.online.measurement_log import FILE
from planner.sim.cluster.sim_gpu import H200, capped_speed
from tests.command_line import run
from tests.contract.bus import until
from tests.doubles.nvml.loaded import library_environment
from tests.doubles.nvml.state import FakeNvml
from tests.integration.profiler.test_profile_command import FAST, ROOT, config, words
from tests.unit.planner.profiler.engine_in_process import DECODE_POWER

FOUND = [700_000, 650_000]


def caps(folder: Path, *more: str) -> tuple[str, ...]:
    """The options that put GPU 0 under caps."""
    return ("--gpus", "0", "--lock-file", str(folder / "agent.lock"), *more)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("SIGKILL", marks=pytest.mark.long),
        pytest.param("SIGTERM", marks=pytest.mark.nightly),
        pytest.param("engine ends", marks=pytest.mark.nightly),
    ],
)
async def test_limits_are_what_they_were_however_a_run_ends(tmp_path, how):
    fake = FakeNvml(tmp_path / "nvml-state", 2)
    fake.gpus[1].foreign_write(FOUND[1])
    engine = config(tmp_path, FAST)
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main"),
        *words(tmp_path, engine, "--max-context-length", "500", *caps(tmp_path, "--caps", "400,600")),
        cwd=ROOT,
        env=library_environment(fake),
        stderr=asyncio.subprocess.PIPE,
    )
    log = tmp_path / "out" / FILE
    try:
        await until(lambda: log.exists() and b'"cap_watts":600' in log.read_bytes(), "a point under 600 W", 120)
        assert fake.enforced == [600_000, FOUND[1]]
        if how == "engine ends":
            port = (tmp_path / "out" / "engine_tp1.log").read_text().split()[2].rpartition(":")[2]
            os.kill(listener(int(port)), signal.SIGKILL)
        else:
            started.send_signal(getattr(signal, how))
        _, err = await asyncio.wait_for(started.communicate(), 120)
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
    await until(lambda: fake.enforced == FOUND, "every limit is back")
    assert started.returncode == {"SIGTERM": 130, "SIGKILL": -9, "engine ends": 1}[how], err
    assert {mw for slot, mw, _ in fake.writes if slot == 1} == set()
    with (tmp_path / "agent.lock").open() as lock:
        await until(lambda: is_free(lock), "the agent's lock is free")


def is_free(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def listener(port: int) -> int:
    """The process that listens on a port of this machine."""
    wanted = f"0100007F:{port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = [line[9] for line in lines if line[1] == wanted and line[3] == "0A"]
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            links = [str(each.readlink()) for each in folder.iterdir()]
        except OSError:
            continue
        if f"socket:[{inode}]" in links:
            return int(folder.parent.name)
    raise AssertionError(f"no process listens on {port}")


STEADY = {
    "prefill_base_ms": 60,
    "prefill_ms_per_token": 0.05,
    "itl_base_ms": 8,
    "itl_ms_per_request": 0.2,
    "itl_ms_per_kv_token": 0.0005,
}


@pytest.mark.nightly
async def test_one_command_writes_what_caps_cost_and_a_planner_loads_it(tmp_path, record_property):
    gpus = tmp_path / "gpus"
    gpus.mkdir()
    file = make_shared_gpu(gpus, "GPU-0", H200, H200.max_mw, time.monotonic())
    engine = config(tmp_path, STEADY, "--gpu-folder", str(gpus), "--role", "decode")
    options = ("--gpu-folder", str(gpus), "--max-context-length", "500", "--caps", "340,380,420")
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", *words(tmp_path, engine, *caps(tmp_path, *options))),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(started.communicate(), 500)
    assert started.returncode == 0, err
    assert b"Suggested cap, decode TP:1 with " in out
    folder = tmp_path / "out"
    names = {each.name for each in folder.iterdir()}
    assert {"power_curve.json", "power_speed.png", "power_residuals.png", "report.html"} <= names
    rows = json.loads((folder / "power_curve.json").read_text())["rows"]
    assert {row["cap_watts"] for row in rows} == {340, 380, 420, 700}
    assert SharedGpu(file, time.monotonic).limit_mw == H200.max_mw
    found = load_profile(folder).prefill_curve
    assert found is not None
    # Within 5 % is asserted where no busy machine stretches a clock: test_run_under_caps.py.
    errors = [capped_speed(found, cap) / capped_speed(DECODE_POWER, cap) - 1 for cap in (340_000, 380_000, 420_000)]
    record_property("measured", f"speeds under caps: {', '.join(f'{each:+.1%}' for each in errors)}")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("--caps", "300"), "--caps: limits are set on GPUs of this node; name those of the engine with --gpus"),
        (("--caps", "0"), "caps are whole numbers from 1 to 100000"),
        (("--lock-file", "x"), "--lock-file goes with --caps"),
        (("--gpu-folder", "/no/such", "--caps", "300"), "--gpu-folder: /no/such: holds no GPU"),
    ],
)
def test_caps_that_cannot_be_held_are_refused_in_one_line(tmp_path, given, line):
    done = run("profile", "--endpoint", "http://127.0.0.1:9", "--output-dir", str(tmp_path / "out"), *given)
    assert done.code == 2
    assert line in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "limits", "line"),
    [
        ("800", (700, 700), "--caps 800: the limit found is 700 W; a profile only lowers limits"),
        ("650", (600, 600), "--caps 650: the limit found is 600 W"),
        ("100", (700, 700), "--caps 100: these GPUs take 200 W and more"),
        ("300", (700, 600), "--caps: the GPUs have different limits (600 W, 700 W); set them alike before"),
    ],
)
def test_caps_that_do_not_go_with_the_limits_found_are_refused_before_any_is_set(tmp_path, given, limits, line):
    gpus = tmp_path / "gpus"
    gpus.mkdir()
    files = [
        make_shared_gpu(gpus, f"GPU-{index}", H200, watts * 1000, time.monotonic())
        for index, watts in enumerate(limits)
    ]
    place = ("--gpu-folder", str(gpus), "--lock-file", str(tmp_path / "agent.lock"), "--output-dir", str(tmp_path))
    done = run("profile", "--endpoint", "http://127.0.0.1:9", *place, "--caps", given)
    assert done.code == 2
    assert line in done.err.splitlines()[-1]
    assert [SharedGpu(file, time.monotonic).limit_mw for file in files] == [watts * 1000 for watts in limits]


def test_an_agent_that_owns_the_gpus_is_named(tmp_path):
    gpus = tmp_path / "gpus"
    gpus.mkdir()
    make_shared_gpu(gpus, "GPU-0", H200, H200.max_mw, time.monotonic())
    with (tmp_path / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = ("--gpu-folder", str(gpus), "--lock-file", str(tmp_path / "agent.lock"), "--output-dir", str(tmp_path))
        done = run("profile", "--endpoint", "http://127.0.0.1:9", *place, "--caps", "300")
    assert done.code == 1
    assert "agent.lock is held by a process without a name: this node's GPUs have a power agent" in done.one_line()


def test_a_run_that_fails_also_names_a_limit_that_it_did_not_put_back(tmp_path):
    """A run before it was killed; another program sets a limit while this one asks its engine."""
    gpus = tmp_path / "gpus"
    gpus.mkdir()
    gpu = SharedGpu(make_shared_gpu(gpus, "GPU-0", H200, 400_000, time.monotonic()), time.monotonic)
    (tmp_path / "agent.lock").write_text("the run before")
    kept = {"GPU-0": {"found_mw": 700_000, "set_mw": 400_000}}
    limits = {"boot": BOOT_ID.read_text().strip(), "owners": ["the run before"], "gpus": kept}
    (tmp_path / "profile-limits.json").write_text(json.dumps(limits))

    class BrokenEngine(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            gpu.set_limit(300_000)
            self.send_error(500)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), BrokenEngine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = ("--gpu-folder", str(gpus), "--lock-file", str(tmp_path / "agent.lock"), "--output-dir", str(tmp_path))
        done = run("profile", "--endpoint", f"http://127.0.0.1:{server.server_port}", *place, "--caps", "350")
        server.shutdown()
    assert done.code == 1
    assert "GPU 0 (NVIDIA H200): another program set 300 W meanwhile; it is left so (found: 700 W)" in done.err
    assert len(done.err.splitlines()) == 2
