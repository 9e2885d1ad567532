"""GPUs, owners, load figures and options of a run with real workers."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from agent.connectors.local.worker_owners import WorkerOwners
from agent.connectors.local.worker_records import WorkerBook, WorkerRecord, WorkerRecords
from agent.core.scaling.worker_lifecycle import WorkerStage
from agent.ports import DriverError, GpuOwner, OwnersUnknownError
from agent.runtime.boot import boot_id
from deploy.cli.errors import UsageError
from deploy.demo.gpus import HardwareMeter
from deploy.demo.options import UpOptions
from deploy.demo.prepare import prepare
from deploy.demo.real_workers.measured_load import MeasuredLoad
from deploy.engine.shared_gpu import SharedGpu, make_shared_gpu
from deploy.engine.shared_gpu_driver import SharedGpuDriver
from deploy.load.outcomes import RequestOutcome
from planner.domain.ids import DeploymentId
from planner.domain.pool import Role
from planner.sim.cluster.sim_gpu import H200

REAL = UpOptions(real_workers=True, nodes=2, gpus_per_node=2, startup_s=5.0)


def test_the_agents_writes_are_what_the_engine_works_under_and_what_the_meter_sums(tmp_path: Path) -> None:
    files = [make_shared_gpu(tmp_path, f"GPU-{index}", H200, H200.min_mw, 1.0) for index in range(2)]
    gpus = [SharedGpu(file, lambda: 1.0) for file in files]
    meter = HardwareMeter({gpu.uuid: gpu.limit_mw for gpu in gpus})
    driver = SharedGpuDriver(gpus, meter.wrote, threading.Lock())
    assert [info.gpu for info in driver.enumerate()] == ["GPU-0", "GPU-1"]
    assert driver.failed() == {}
    driver.set_limit("GPU-1", 450_000)
    engine = SharedGpu(files[1], lambda: 1.0)
    assert engine.limit_mw == 450_000
    assert meter.sum_mw == H200.min_mw + 450_000
    driver.set_limit("GPU-1", 300_000)
    assert (meter.sum_mw, meter.largest_mw) == (H200.min_mw + 300_000, H200.min_mw + 450_000)
    engine.set_load(600_000)
    reading = driver.read("GPU-1")
    assert (reading.enforced_mw, reading.throttle_reasons) == (300_000, ("sw_power_cap",))
    with pytest.raises(DriverError, match="GPU-9"):
        driver.read("GPU-9")


async def test_owners_are_the_workers_of_the_connectors_record(tmp_path: Path) -> None:
    owners = WorkerOwners(tmp_path / "state", "d", {"aggregated": "aggregated"}.__getitem__)
    assert await owners.owners() == {}
    assert not (tmp_path / "state").exists()
    records = WorkerRecords(tmp_path / "state")
    records.open(boot_id())
    one = WorkerRecord("w1", "aggregated", 9400, ("GPU-0",), "mark", 1.0)
    two = replace(one, worker="w2", gpus=("GPU-1", "GPU-2"), stage=WorkerStage.DRAINING)
    records.store(WorkerBook(boot_id(), {"aggregated": 1}, [one, two]))
    first = GpuOwner("d", "aggregated", "aggregated", "w1", "w1")
    leaving = replace(first, worker="w2", pod="w2", terminating=True)
    assert await owners.owners() == {"GPU-0": first, "GPU-1": leaving, "GPU-2": leaving}
    (tmp_path / "state" / "workers.json").write_text("{")
    with pytest.raises(OwnersUnknownError, match=r"workers\.json"):
        await owners.owners()


def test_the_figures_of_the_load_go_on_where_outcomes_are_forgotten() -> None:
    load = MeasuredLoad("http://127.0.0.1:1", "demo", 1000, 40)
    load._client.outcomes += [RequestOutcome(0.0, 0.5, 0.8, 11), RequestOutcome(0.0, 2.0, 2.3, 11)]
    first = load.totals()
    assert (first["good_requests"], first["output_tokens"], first["failed_requests"]) == (1, 22, {})
    load._client.outcomes += [RequestOutcome(3.0, failure="status 503")]
    second = load.totals()
    assert (second["good_requests"], second["output_tokens"]) == (1, 22)
    assert second["failed_requests"] == {"status 503": 1}
    assert second["ttft_ms"]["max"] == 2000.0
    assert load.late_s() == 3.0


def test_real_workers_are_one_pool_of_both_phases() -> None:
    run = prepare(REAL)
    [pool] = run.planner.deployments[DeploymentId("default-demo")].pools.values()
    assert (pool.role, pool.max_replicas) == (Role.AGGREGATED, 4)
    assert pool.startup_s > REAL.startup_s


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (replace(REAL, speed=20.0), "--speed"),
        (replace(REAL, prefill_cap_watts=400.0), "--prefill-cap-watts"),
        (replace(REAL, decode_cap_watts=400.0), "--decode-cap-watts"),
        (replace(REAL, caps="fixed"), "--caps fixed"),
        (replace(REAL, nodes=20, gpus_per_node=8), "160 GPUs"),
        (replace(REAL, budget_watts=700.0), "--budget-watts"),
    ],
)
def test_what_belongs_to_the_simulated_cluster_is_refused_by_name(options: UpOptions, named: str) -> None:
    with pytest.raises(UsageError, match=named) as refused:
        prepare(options)
    assert len(str(refused.value).splitlines()) == 1
