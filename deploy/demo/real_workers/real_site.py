"""The site that `wattscale up --real-workers` plans for: engines as processes, their GPUs, a front, and the load."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent.connectors.bus_claims import SecondConnectorError
from agent.connectors.local.local_file import LocalConnectorFile, LocalPool
from agent.connectors.local.worker_owners import WorkerOwners
from agent.connectors.local.worker_records import WorkerBook, WorkerRecords
from agent.ports import GpuOwners
from agent.runtime.boot import boot_id
from agent.runtime.service import PowerAgentService
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.settings import BusSettings
from deploy.cli.bus_address import servers_of
from deploy.cli.errors import UsageError
from deploy.compose.connectors.local_service import carry_out
from deploy.compose.planner_service import Planner
from deploy.demo.demo_site import running
from deploy.demo.gpus import HardwareMeter
from deploy.demo.parts import agent_on, planner_on
from deploy.demo.prepare import MODEL, REAL_ROLES, Prepared
from deploy.demo.real_workers.front import Front
from deploy.demo.real_workers.measured_load import MeasuredLoad
from deploy.demo.real_workers.worker_ending import RUN_FOLDER, end_workers, guarded, signal_workers
from deploy.engine.engine_run import card_of
from deploy.engine.shared_gpu import SharedGpu, make_shared_gpu
from deploy.engine.shared_gpu_driver import SharedGpuDriver
from deploy.installed_files import own_module
from planner.adapters.power_priors import gpu
from planner.runtime.config.settings import MetricsSettings

CLAIM_TTL_S = 1.0
DRAIN_S = 60.0
STARTUP_LIMIT_S = 120.0
FIRST_PORT, PORTS, PORT_RANGES = 10_000, 100, 200
"""Below the ports that the system gives to clients; two runs at once begin in different ranges."""
LONGEST_CONTEXT = 131_072
SAMPLE_S = 0.5
LATE_ENGINE_S = 1.0


class RealSite:
    """Workers of one pool as processes. ``finished`` is set when the last answer of a finite load is complete."""

    def __init__(self, run: Prepared) -> None:
        self.finished = asyncio.Event()
        self._run = run
        self._lock = threading.Lock()
        self._gpus: dict[str, list[SharedGpu]] = {}
        self._folder = Path()
        self._front: Front | None = None
        self._load: MeasuredLoad | None = None
        self._began_s = time.monotonic()
        self._gpu_s = 0.0

    @asynccontextmanager
    async def opened(self, removals: list[Callable[[], None]]) -> AsyncIterator[None]:
        """GPUs, front and load for the body; afterwards no worker and no file is left.

        ``removals``: receives what does so where the run is ended by force.
        """
        async with AsyncExitStack() as stack:
            self._folder = Path(stack.enter_context(TemporaryDirectory(prefix="wattscale-workers-")))
            removals.append(self._remove)
            await stack.enter_async_context(guarded(self._folder))
            self._make_gpus(stack)
            self._want_first()
            stack.push_async_callback(end_workers, self._folder)
            self._front = await stack.enter_async_context(Front(self._state / "endpoints.json", MODEL))
            options = self._run.options
            self._load = MeasuredLoad(self._front.url, MODEL, options.ttft_ms, options.itl_ms)
            self._began_s = time.monotonic()
            async with running(self._send(self._load), self._count()):
                yield

    @property
    def address(self) -> str:
        """Where requests go."""
        return self._open_front.url

    def make_agent(self, bus: Bus, node: str) -> PowerAgentService:
        """The power agent of one node."""
        return agent_on(bus, node, SharedGpuDriver(self._gpus[node], self.meter.wrote, self._lock), self._owners())

    def make_planner(self, bus: Bus, holder: str) -> Planner:
        """One planner that scrapes the front."""
        metrics = MetricsSettings(source="scrape", urls=(f"{self._open_front.url}/metrics",))
        return planner_on(self._run, bus, metrics, holder)

    async def carry_out(self, _: Bus, url: str) -> None:
        """Run `wattscale connector local` until cancelled, on a connection of its own. Raises UsageError."""
        try:
            await carry_out(self._connector_file(url))
        except SecondConnectorError as error:
            raise UsageError(str(error)) from error

    def load_s(self) -> float:
        """Seconds of load so far."""
        return time.monotonic() - self._began_s

    def problems(self) -> list[str]:
        """Why the figures are worse than the engines: this machine is too slow for them."""
        late_s = self._load.late_s() if self._load is not None else 0.0
        found = [f"requests are sent {late_s:.1f} s late: this machine is too busy for the load"] if late_s else []
        behind_s = self._open_front.metrics.engines_behind_s
        if behind_s > LATE_ENGINE_S:
            found.append(f"an engine is {behind_s:.1f} s late: this machine is too busy for so many workers")
        return found

    def totals(self) -> dict[str, Any]:
        """The run's figures so far: those of the load, GPU-hours held by workers, and the GPUs' energy."""
        assert self._load is not None  # noqa: S101 - asked while the site is open
        total = self._load.totals()
        energy_joules = sum(one.read().energy_mj for gpus in self._gpus.values() for one in gpus) / 1000
        tokens = total["output_tokens"]
        return {
            **total,
            "gpu_hours": self._gpu_s / 3600,
            "energy_joules": energy_joules,
            "joules_per_output_token": energy_joules / tokens if tokens else None,
            "load_seconds": self.load_s(),
        }

    @property
    def _state(self) -> Path:
        return self._folder / "connector"

    @property
    def _open_front(self) -> Front:
        if self._front is None:
            raise RuntimeError("open the site first")
        return self._front

    def _remove(self) -> None:
        signal_workers(self._folder, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make_gpus(self, stack: AsyncExitStack) -> None:
        """Every GPU parked at its lowest limit, as a site would be handed over."""
        options = self._run.options
        card = card_of(gpu(options.gpu))
        folder = self._folder / "gpus"
        folder.mkdir()
        limits = {}
        for node in self._run.nodes:
            self._gpus[node] = []
            for index in range(options.gpus_per_node):
                uuid = f"GPU-{node}-{index:02d}"
                file = make_shared_gpu(folder, uuid, card, card.min_mw, time.monotonic())
                shared = stack.enter_context(closing(SharedGpu(file, time.monotonic)))
                self._gpus[node].append(shared)
                limits[uuid] = shared.limit_mw
        self.meter = HardwareMeter(limits)

    def _want_first(self) -> None:
        """One worker of each pool from the start, whatever is decided: the planner takes over a site that serves."""
        records, boot = WorkerRecords(self._state), boot_id()
        records.open(boot)
        records.store(WorkerBook(boot, wanted=dict.fromkeys(REAL_ROLES, 1)))

    def _owners(self) -> GpuOwners:
        roles = {name: role.value for name, role in REAL_ROLES.items()}
        return WorkerOwners(self._state, self._run.options.deployment, roles.__getitem__)

    def _connector_file(self, url: str) -> LocalConnectorFile:
        options, [pool] = self._run.options, REAL_ROLES
        return LocalConnectorFile(
            deployment=options.deployment,
            model=MODEL,
            nats=BusSettings(servers=servers_of(url)),
            claim_ttl_s=CLAIM_TTL_S,
            state_folder=self._state,
            gpus=tuple(one.uuid for gpus in self._gpus.values() for one in gpus),
            first_port=FIRST_PORT + PORTS * (os.getpid() % PORT_RANGES),
            ports=PORTS,
            pools={
                pool: LocalPool(
                    command=self._engine_command(),
                    environment={RUN_FOLDER: str(self._folder)},
                    gpus_per_replica=self._run.profile.decode_gpus,
                    drain_path="/drain",
                    startup_timeout_s=options.startup_s + STARTUP_LIMIT_S,
                    drain_s=DRAIN_S,
                )
            },
        )

    def _engine_command(self) -> tuple[str, ...]:
        options = self._run.options
        profile = ("--profile", str(options.profile.resolve())) if options.profile is not None else ()
        return (
            *(*own_module("deploy.cli.main"), "engine", "--port", "{port}", "--model", "{model}"),
            *("--seed", str(options.seed), "--startup-s", str(options.startup_s), *profile),
            *("--gpu", options.gpu, "--gpu-folder", str(self._folder / "gpus")),
            *("--max-model-len", str(LONGEST_CONTEXT)),
        )

    async def _send(self, load: MeasuredLoad) -> None:
        await load.run(self._run.requests)
        self.finished.set()
        await asyncio.Event().wait()

    async def _count(self) -> None:
        """Add up the time that workers hold GPUs."""
        owners, before_s = self._owners(), time.monotonic()
        while True:
            await asyncio.sleep(SAMPLE_S)
            held, now_s = await owners.owners(), time.monotonic()
            self._gpu_s += len(held) * (now_s - before_s)
            before_s = now_s
