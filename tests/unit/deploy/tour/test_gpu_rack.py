"""An agent in another process sees and limits the GPUs of the cluster, through a socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.ports import DriverError, DriverErrorKind, OwnersUnknownError
from deploy.demo.options import UpOptions
from deploy.demo.parts import make_cluster, node_gpus
from deploy.demo.prepare import prepare
from deploy.tour.gpu_rack import GpuRack
from deploy.tour.rack_driver import RackDriver, RackOwners


async def test_limits_readings_and_owners_go_through(tmp_path: Path) -> None:
    run = prepare(UpOptions(nodes=2, gpus_per_node=3))
    cluster, meter = make_cluster(run)
    nodes = {node: node_gpus(run, cluster, meter, node) for node in run.nodes}
    there, owners = nodes["node-1"][0], nodes["node-0"][1]
    socket = tmp_path / "gpus"
    async with GpuRack(socket, nodes):
        driver = RackDriver(socket, "node-1")
        found = await asyncio.to_thread(driver.enumerate)
        assert list(found) == list(there.enumerate())
        gpu = found[0].gpu
        await asyncio.to_thread(driver.set_limit, gpu, 400_000)
        assert cluster.reading(gpu).enforced_mw == 400_000
        assert (await asyncio.to_thread(driver.read, gpu)) == there.read(gpu)
        assert await RackOwners(socket, "node-0").owners() == await owners.owners()
        for node, name in (("node-1", "GPU-none"), ("node-1", found[0].gpu.replace("1", "0", 1)), ("other", gpu)):
            with pytest.raises(DriverError) as refused:
                await asyncio.to_thread(RackDriver(socket, node).set_limit, name, 300_000)
            assert refused.value.kind is DriverErrorKind.NO_SUCH_GPU
    with pytest.raises(DriverError) as gone:
        await asyncio.to_thread(driver.read, gpu)
    assert gone.value.kind is DriverErrorKind.DRIVER_DOWN
    with pytest.raises(OwnersUnknownError):
        await RackOwners(socket, "node-0").owners()
