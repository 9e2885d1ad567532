"""Connects agents and connector to the simulated cluster: its GPUs and workers behind their ports.

Also keeps the run's most important figure, the largest sum of limits ever in force on the simulated hardware,
taken at every write and never from a message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from agent.ports import DriverError, DriverErrorKind, GpuInfo, GpuOwner, GpuReading
from deploy.demo.connector import Workers
from planner.sim.cluster.plant import ClusterSpec
from planner.sim.live_cluster import LiveCluster


class HardwareMeter:
    """The sum of limits in force, in milliwatts, and its largest value so far."""

    def __init__(self, limits_mw: Mapping[str, int]) -> None:
        """``limits_mw``: what is in force now, by GPU."""
        self.on_write: Callable[[int], None] | None = None
        """Called with every new sum, on the thread that wrote."""
        self._limits_mw = dict(limits_mw)
        self.sum_mw = sum(self._limits_mw.values())
        self.largest_mw = self.sum_mw

    def wrote(self, gpu: str, enforced_mw: int) -> None:
        """Add a new limit to the sum. Must be called under the lock of the GPUs, so that no write comes in between."""
        self.sum_mw += enforced_mw - self._limits_mw[gpu]
        self._limits_mw[gpu] = enforced_mw
        self.largest_mw = max(self.largest_mw, self.sum_mw)
        if self.on_write is not None:
            self.on_write(self.sum_mw)


class PlantDriver:
    """One node's GPUs as a GPU driver."""

    def __init__(self, cluster: LiveCluster, meter: HardwareMeter, node: str, spec: ClusterSpec) -> None:
        self._cluster = cluster
        self._meter = meter
        self._spec = spec
        self._gpus = [reading.gpu for reading in cluster.readings() if reading.node == node]

    def enumerate(self) -> Sequence[GpuInfo]:
        card = self._spec.card
        return [
            GpuInfo(gpu, index, card.model, card.default_mw, card.min_mw, card.max_mw)
            for index, gpu in enumerate(self._gpus)
        ]

    def failed(self) -> Mapping[str, DriverError]:
        return {}

    def read(self, gpu: str) -> GpuReading:
        reading = self._cluster.reading(self._known(gpu))
        return GpuReading(
            gpu=gpu,
            requested_mw=reading.requested_mw,
            enforced_mw=reading.enforced_mw,
            draw_mw=reading.draw_mw,
            energy_mj=reading.energy_mj,
            throttle_reasons=("sw_power_cap",) if reading.load_mw > reading.enforced_mw else (),
        )

    def set_limit(self, gpu: str, mw: int) -> None:
        with self._cluster.held():
            self._meter.wrote(gpu, self._cluster.set_cap(self._known(gpu), mw))

    def close(self) -> None:
        """Nothing to release: limits stay as they are."""

    def _known(self, gpu: str) -> str:
        if gpu not in self._gpus:
            raise DriverError(DriverErrorKind.NO_SUCH_GPU, f"no GPU {gpu} on this node", call="handle", gpu=gpu)
        return gpu


class PlantOwners:
    """Which workers run on one node's GPUs, as a scheduler would report it."""

    def __init__(self, cluster: LiveCluster, node: str, deployment: str, roles: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._node = node
        self._deployment = deployment
        self._roles = roles

    async def owners(self) -> Mapping[str, GpuOwner]:
        return {
            reading.gpu: GpuOwner(
                deployment=self._deployment,
                pool=reading.pool,
                role=self._roles[reading.pool],
                worker=reading.worker,
                pod=reading.worker,
                terminating=reading.terminating,
            )
            for reading in self._cluster.readings()
            if reading.node == self._node and reading.worker
        }


class PlantWorkers:
    """The cluster's pools as the connector sees them."""

    def __init__(self, cluster: LiveCluster) -> None:
        self._cluster = cluster

    def pools(self) -> Mapping[str, Workers]:
        counts = self._cluster.worker_counts()
        return {name: Workers(count.ready, count.starting, count.draining) for name, count in counts.items()}

    def start(self, pool: str, gpus: Sequence[str] | None) -> bool:
        if self._cluster.reclaim_one(pool) is not None:
            return True
        if gpus is not None and self._cluster.start_worker(pool, gpus) is not None:
            return True
        return self._cluster.start_worker(pool) is not None

    def drain(self, pool: str) -> None:
        self._cluster.drain_one(pool)
