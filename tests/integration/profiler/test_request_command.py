"""`wattscale request` as a process with real engines: states and events as promised, killed and gone on."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.connectors.local.worker_records import WorkerRecords
from agent.runtime.boot import boot_id
from deploy.compose.connectors.local_service import load_local
from planner.profiler.online.measurement_log import FILE as MEASUREMENTS
from planner.profiler.requests.lifecycle import RequestSeen, advance
from planner.profiler.requests.request_manifest import parse_request
from planner.profiler.requests.request_status import RequestStatus, status_from_dict, status_to_dict
from tests.command_line import Done, process, run, wattscale
from tests.contract.bus import until
from tests.doubles.nvml.loaded import library_environment
from tests.doubles.nvml.state import FakeNvml
from tests.free_ports import free_port

NVML_ERROR_DRIVER_NOT_LOADED = 9
NOW = datetime(2026, 11, 26, tzinfo=UTC)
ROOT = Path(__file__).parents[3]
REQUEST: dict[str, Any] = {
    "apiVersion": "nvidia.com/v1alpha1",
    "kind": "DynamoGraphDeploymentRequest",
    "metadata": {"name": "demo"},
    "spec": {
        "model": "demo",
        "backend": "vllm",
        "useMocker": True,
        "profilingConfig": {
            "profilerImage": "nvcr.io/nvidia/ai-dynamo/vllm-runtime:0.9.0",
            "config": {
                "sla": {"isl": 100, "osl": 16, "ttft": 2000, "itl": 200},
                "engine": {"maxContextLength": 200},
            },
        },
    },
}
FAST = ("--prefill-base-ms=2", "--prefill-ms-per-token=0.01", "--itl-base-ms=0.3")
LINES = (*FAST, "--itl-ms-per-request=0.1", "--itl-ms-per-kv-token=0.0001")


class Here:
    """A request's files, and the commands on them."""

    def __init__(self, folder: Path, *engine: str, command: list[str] | None = None) -> None:
        self.file, self.folder = folder / "request.yaml", folder / "kept"
        start = [sys.executable, "-m", "deploy.cli.main", "engine", "--port", "{port}", "--model", "{model}"]
        self.engine = folder / "engine.yaml"
        self.engine.write_text(json.dumps({"model": "demo", "command": command or start, "args": [*LINES, *engine]}))
        self.more: tuple[str, ...] = ("--tp", "1", "--quick", "--max-in-flight", "2", "--first-port", str(free_port()))

    def write(self, **spec: Any) -> None:
        """The request with keys of its spec set."""
        self.file.write_text(yaml.safe_dump({**REQUEST, "spec": {**copy.deepcopy(REQUEST["spec"]), **spec}}))

    @property
    def words(self) -> tuple[str, ...]:
        where = ("-f", str(self.file), "--folder", str(self.folder))
        return ("request", "apply", *where, "--config", str(self.engine), *self.more)

    async def apply(self) -> Done:
        return await process(*self.words, timeout_s=180)

    async def request(self, command: str, *more: str) -> Done:
        return await wattscale("request", command, "--folder", str(self.folder), *more)

    @asynccontextmanager
    async def applying(self) -> AsyncIterator[asyncio.subprocess.Process]:
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli.main", *self.words), cwd=ROOT, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            yield started
        finally:
            if started.returncode is None:
                started.kill()
            await started.wait()

    def record(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "request.json").read_text()))

    def events(self) -> list[str]:
        return [event["reason"] for event in self.record()["events"]]

    def stage(self) -> str:
        return str(self.record()["status"]["stage"])

    def workers(self) -> list[int]:
        settings = load_local(self.folder / "workers" / "connector.yaml", {}).settings
        return [one.pid for one in WorkerRecords(settings.state_folder).open(boot_id()).workers]

    def measured(self) -> int:
        log = self.folder / "profile" / MEASUREMENTS
        return log.read_bytes().count(b'"measurement"') if log.exists() else 0


def serves(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.long
async def test_from_a_killed_profiler_to_workers_that_are_applied_by_hand_and_drained(tmp_path: Path):
    here = Here(tmp_path)
    here.write()
    async with here.applying() as started:
        await until(lambda: here.measured() > 3, "some points are measured")
        os.kill(started.pid, signal.SIGKILL)
        await started.wait()
    assert (here.stage(), here.events()) == ("Profiling", ["Initialized", "ProfilingJobCreated"])
    kept = here.measured()
    done = await here.apply()
    assert done.code == 0, done.err
    assert here.measured() > kept
    ready = ["Initialized", "ProfilingJobCreated", "SpecGenerated"]
    assert (here.stage(), here.events()) == ("Ready", ready), "killed, it repeats no event"
    graph = yaml.safe_load((here.folder / "outputs" / "config_with_planner.yaml").read_text())
    assert graph == here.record()["status"]["generatedDeployment"]
    assert graph["metadata"]["labels"] == {
        "dgdr.nvidia.com/name": "demo",
        "dgdr.nvidia.com/namespace": "default",
    }
    checked = await wattscale("planner", "check", "-c", str(here.folder / "outputs" / "planner.yaml"))
    assert checked.code == 0, checked.err

    here.write(autoApply=True)
    assert (await here.apply()).code == 0
    whole = [*ready, "DeploymentCreated", "DeploymentReady"]
    assert (here.stage(), here.events()) == ("Deployed", whole)
    assert (await here.request("status")).out.startswith("demo: Deployed (v1alpha1 Ready)\n")
    (worker,) = here.workers()
    assert serves(worker), "workers outlive the command"

    here.write(autoApply=True, model="another")
    refused = await wattscale(*here.words)
    assert refused.code == 1
    assert "its spec cannot change in state Deployed" in refused.one_line()
    await wattscale(*here.words)
    assert here.events() == [*whole, "SpecChangeRejected"], "once"
    assert here.workers() == [worker], "and nothing else happens"

    assert (await here.request("delete")).code == 0
    assert serves(worker), "what serves stays"
    assert not (here.folder / "outputs").exists()
    assert (await wattscale(*here.words)).code == 2, "its workers are still there"
    assert (await here.request("delete", "--drain-workers")).code == 0
    await until(lambda: not serves(worker), "the worker ended")
    assert [file.name for file in here.folder.iterdir()] == ["lock"]


async def test_deleted_while_it_profiles(tmp_path: Path):
    here = Here(tmp_path, "--startup-s=0")
    here.write()
    async with here.applying() as started:
        await until(lambda: here.measured() > 0, "profiling is under way")
        assert here.stage() == "Profiling"
        deleted = await here.request("delete")
        await started.wait()
    assert deleted.code == 0, deleted.err
    assert "Normal Deleting: nothing of it runs" in deleted.out
    assert [file.name for file in here.folder.iterdir()] == ["lock"]


async def test_profiling_that_fails_is_the_end(tmp_path: Path):
    here = Here(tmp_path, command=["false", "{port}"])
    here.write(autoApply=True)
    done = await here.apply()
    assert done.code == 1
    assert "demo: Failed: false ended with 1 before it served" in done.err.splitlines()[-1]
    failed = ["Initialized", "ProfilingJobCreated", "ProfilingJobFailed"]
    assert (here.stage(), here.events()) == ("Failed", failed)
    assert (await wattscale(*here.words)).code == 1
    assert here.events() == failed, "it is not tried again"
    status = await here.request("status")
    assert status.code == 1
    assert "Profiling: False InitializingFailed: false ended with 1" in status.out
    assert (await here.request("delete")).code == 0
    assert not (here.folder / "request.json").exists()


def test_gpus_that_are_missing_keep_it_pending(tmp_path: Path):
    here = Here(tmp_path)
    config = copy.deepcopy(REQUEST["spec"]["profilingConfig"])
    config["config"]["hardware"] = {"minNumGpusPerEngine": 1024}
    here.write(profilingConfig=config)
    here.more = ()
    for _ in range(2):
        done = run(*here.words)
        assert done.code == 1
        assert "demo: Pending: profiling needs 1024 GPUs, and there are " in done.one_line()
    assert (here.stage(), here.events()) == ("Pending", ["Initialized", "InsufficientGpus"])


def test_a_deletion_that_was_cut_off_is_named_and_one_of_a_request_before_is_not(tmp_path: Path):
    here = Here(tmp_path)
    config = copy.deepcopy(REQUEST["spec"]["profilingConfig"])
    config["config"]["hardware"] = {"minNumGpusPerEngine": 1024}
    here.write(profilingConfig=config)
    here.more = ()
    assert run(*here.words).code == 1
    (here.folder / "deleting").touch()
    done = run(*here.words)
    assert (done.code, "its deletion has begun and did not end" in done.one_line()) == (2, True)
    assert run("request", "delete", "--folder", str(here.folder)).code == 0
    (here.folder / "deleting").touch()
    assert "Pending" in run(*here.words).one_line()
    assert here.stage() == "Pending"
    assert not (here.folder / "deleting").exists()


def test_a_package_that_is_missing_does_not_end_a_request(tmp_path: Path):
    here = Here(tmp_path)
    config = copy.deepcopy(REQUEST["spec"]["profilingConfig"])
    config["config"]["sweep"] = {"useAiConfigurator": True, "aicSystem": "h200_sxm"}
    here.write(profilingConfig=config)
    for _ in range(2):
        done = run("request", "apply", "-f", str(here.file), "--folder", str(here.folder))
        assert (done.code, "demo: Profiling: --offline needs the package aiconf" in done.one_line()) == (1, True)
        assert "then give the command again" in done.err
        assert (here.stage(), here.events()) == ("Profiling", ["Initialized", "ProfilingJobCreated"])


def test_a_gpu_type_that_is_not_named_is_asked_for_before_anything_begins(tmp_path: Path):
    here = Here(tmp_path)
    rapid = {**REQUEST, "apiVersion": "nvidia.com/v1beta1", "spec": {"model": "demo"}}
    here.file.write_text(yaml.safe_dump(rapid))
    done = run("request", "apply", "-f", str(here.file), "--folder", str(here.folder), "--endpoint", "http://h")
    assert "--endpoint would have no effect: the request is sized offline (searchStrategy: rapid)" in done.one_line()
    done = run("request", "apply", "-f", str(here.file), "--folder", str(here.folder))
    assert (done.code, "offline sizing needs the GPU type: set spec.hardware.gpuSku" in done.one_line()) == (2, True)
    assert not (here.folder / "request.json").exists()


async def test_a_driver_that_is_away_does_not_end_a_request(tmp_path: Path):
    here = Here(tmp_path, command=["false", "{port}"])
    here.write()
    here.more = ()
    fake = FakeNvml(tmp_path / "nvml-state", 1)

    async def apply() -> Done:
        return await process(*here.words, env=library_environment(fake), timeout_s=180)

    fake.fail("init", NVML_ERROR_DRIVER_NOT_LOADED)
    done = await apply()
    assert (done.code, "demo: Pending: profiling needs 1 GPUs, and there are 0 (no GPU on this node: " in done.err) == (
        1,
        True,
    )
    assert here.stage() == "Pending"
    # The driver goes away once profiling has begun.
    record = here.record()
    status = advance(parse_request(record["manifest"]), status_from_dict(record["status"]), RequestSeen(), NOW).status
    (here.folder / "request.json").write_text(json.dumps({**record, "status": status_to_dict(status)}))
    for call, line in (("init", "no GPU on this node: "), ("count", "the GPUs of this node cannot be read: ")):
        fake.fail(call, NVML_ERROR_DRIVER_NOT_LOADED)
        done = await apply()
        assert (done.code, f"demo: Profiling: {line}" in done.one_line()) == (1, True), done
        assert here.stage() == "Profiling"
        fake.fail(call, 0)
    done = await apply()
    assert "demo: Failed: false ended with 1 before it served" in done.err.splitlines()[-1], "it went on"


async def test_measurements_that_are_damaged_do_not_end_a_request(tmp_path: Path):
    here = Here(tmp_path, command=["false", "{port}"])
    here.write()
    (here.folder / "profile").mkdir(parents=True)
    request = parse_request(yaml.safe_load(here.file.read_text()))
    status = advance(request, RequestStatus(), RequestSeen(), NOW).status
    status = advance(request, status, RequestSeen(), NOW).status
    record = {"manifest": yaml.safe_load(here.file.read_text()), "status": status_to_dict(status), "events": []}
    (here.folder / "request.json").write_text(json.dumps(record))
    (here.folder / "profile" / MEASUREMENTS).write_text("5\n")
    done = await here.apply()
    assert (done.code, f"{MEASUREMENTS}:1: not a line of a measurement log" in done.one_line()) == (1, True)
    assert here.stage() == "Profiling"


@pytest.mark.parametrize("given", [("--quick",), ("--endpoint", "http://h"), ("--config", "CONFIG"), ("--gpus", "0")])
def test_an_option_that_offline_sizing_would_ignore_is_refused_by_name(tmp_path: Path, given: tuple[str, ...]):
    here = Here(tmp_path)
    config = copy.deepcopy(REQUEST["spec"]["profilingConfig"])
    config["config"]["sweep"] = {"useAiConfigurator": True, "aicSystem": "h200_sxm"}
    here.write(profilingConfig=config)
    words = [str(here.engine) if word == "CONFIG" else word for word in given]
    done = run("request", "apply", "-f", str(here.file), "--folder", str(here.folder), *words)
    assert f"{given[0]} would have no effect: the request is sized offline" in done.one_line()
    assert done.code == 2
    assert not here.folder.exists()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("--tp", "0"), "TP sizes are whole numbers from 1 to 1024"),
        (("--gpus", "9999"), "GPUs are whole numbers from 0 to 1024"),
        (("--endpoint", "somewhere"), "--endpoint: it is not an address"),
        (("--endpoint", "http://h", "--tp", "1,2"), "--tp: an engine that runs has one TP size"),
        (("--config", "/nowhere"), "--config /nowhere: cannot be read: No such file"),
    ],
)
def test_wrong_options_do_not_fail_the_request(tmp_path: Path, given: tuple[str, ...], line: str):
    here = Here(tmp_path)
    here.write()
    done = run("request", "apply", "-f", str(here.file), "--folder", str(here.folder), *given)
    assert (done.code, line in done.err.splitlines()[-1]) == (2, True), done
    assert not here.folder.exists()


def test_a_record_that_is_none_and_a_value_that_it_cannot_hold_are_one_line(tmp_path: Path):
    here = Here(tmp_path)
    here.file.write_text(
        yaml.safe_dump(REQUEST).replace("name: demo", "name: demo\n  creationTimestamp: 2026-01-01", 1)
    )
    done = run(*here.words)
    assert (done.code, "put dates into quotes" in done.one_line()) == (2, True)
    assert not here.folder.exists()
    here.folder.mkdir()
    named = {"metadata": {"name": "x"}}
    for manifest, status, events in (({}, {}, []), (named, {"stage": "none"}, []), (named, {}, [5])):
        record = {"manifest": manifest, "status": status, "events": events}
        (here.folder / "request.json").write_text(json.dumps(record))
        done = run("request", "status", "--folder", str(here.folder))
        assert (done.code, "not a request's record" in done.one_line()) == (2, True), record
    (here.folder / "request.json").write_text(json.dumps({"manifest": named, "status": {}, "events": []}))
    done = run("request", "delete", "--folder", str(here.folder))
    assert (done.code, "its request cannot be read: apiVersion: missing" in done.one_line()) == (2, True)


def test_a_request_that_cannot_be_read_makes_nothing(tmp_path: Path):
    here = Here(tmp_path)
    here.write(backend="vlm", modle="x")
    done = run(*here.words)
    assert done.code == 2
    assert done.err.splitlines() == [
        "wattscale: spec.backend: input should be 'vllm', 'sglang' or 'trtllm'",
        "wattscale: spec.modle: unknown key; did you mean 'model'?",
    ]
    assert not here.folder.exists()
    here.file.write_text("{")
    assert "not YAML" in run(*here.words).one_line()
    assert "there is no request" in run("request", "status", "--folder", str(here.folder)).one_line()
    assert "there is no request" in run("request", "delete", "--folder", str(here.folder)).one_line()
