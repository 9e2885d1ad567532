"""An agent in another process sees and limits the GPUs of the cluster, through a socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.ports import DriverError, DriverErrorKind, OwnersUnknownError
from deploy.demo.gpus import PlantDriver, PlantOwners
from deploy.demo.options import UpOptions
from deploy.demo.parts import make_cluster
from deploy.demo.prepare import prepare
from deploy.tour.gpu_rack import GpuRack
from deploy.tour.rack_driver import RackDriver, RackOwners


async def test_limits_readings_and_owners_go_through(tmp_path: Path) -> None:
    run = prepare(UpOptions(nodes=2, gpus_per_node=3))
    cluster, meter = make_cluster(run)
    drivers = {node: PlantDriver(cluster, meter, node, run.plant.cluster) for node in run.nodes}
    owners = {
        node: PlantOwners(cluster, node, "chat", {"prefill": "prefill", "decode": "decode"}) for node in run.nodes
    }
    socket = tmp_path / "gpus"
    async with GpuRack(socket, drivers, owners):
        driver = RackDriver(socket, "node-1")
        found = await asyncio.to_thread(driver.enumerate)
        assert list(found) == list(drivers["node-1"].enumerate())
        gpu = found[0].gpu
        await asyncio.to_thread(driver.set_limit, gpu, 400_000)
        assert cluster.reading(gpu).enforced_mw == 400_000
        assert (await asyncio.to_thread(driver.read, gpu)) == drivers["node-1"].read(gpu)
        assert await RackOwners(socket, "node-0").owners() == await owners["node-0"].owners()
        for node, name in (("node-1", "GPU-none"), ("node-1", found[0].gpu.replace("1", "0", 1)), ("other", gpu)):
            with pytest.raises(DriverError) as refused:
                await asyncio.to_thread(RackDriver(socket, node).set_limit, name, 300_000)
            assert refused.value.kind is DriverErrorKind.NO_SUCH_GPU
    with pytest.raises(DriverError) as gone:
        await asyncio.to_thread(driver.read, gpu)
    assert gone.value.kind is DriverErrorKind.DRIVER_DOWN
    with pytest.raises(OwnersUnknownError):
        await RackOwners(socket, "node-0").owners()
