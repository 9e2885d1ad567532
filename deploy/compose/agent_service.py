"""Composes the power agent from its settings, runs it, and stops it in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.adapters.kubernetes.access import NoAccessError, find_access
from agent.adapters.kubernetes.api import KubernetesApi
from agent.adapters.kubernetes.event_recorder import KubernetesEvents
from agent.adapters.kubernetes.gpu_owners import KubernetesOwners, PodLabels
from agent.adapters.kubernetes.list_watch import ListWatch
from agent.adapters.kubernetes.pods import pods_of_node
from agent.adapters.managed_state import ManagedState
from agent.adapters.pod_resources.kubelet import PodResources
from agent.adapters.single_instance import single_instance
from agent.core.ownership import Pod
from agent.drivers.procfs import ProcFs
from agent.drivers.simulated import SimulatedDriver, SimulatedGpu, SimulatedGpuModel
from agent.ports import DriverErrorKind, GpuDriver, NoOwners, monotonic
from agent.runtime.agent_file import AgentFile, SimulatedSection
from agent.runtime.annotation_limits import AnnotationLimits
from agent.runtime.service import BusSource, LibraryMismatchError, PowerAgentService
from bus_schemas.jetstream.connect import Bus, BusError, connect
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import AGAIN_S, ended
from bus_schemas.subjects import BadNameError
from bus_schemas.units import mw_from_watts
from bus_schemas.visible_text import visible_handler
from deploy.cli.errors import CliError, UsageError
from deploy.event_loop import limit_repeats
from deploy.installed_files import rival_claims

if TYPE_CHECKING:
    from agent.runtime.health import AgentHealthServer

log = logging.getLogger("wattscale.agent")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0


def run_power(settings: AgentFile) -> int:
    """Run until SIGTERM or SIGINT. Raises UsageError for settings that cannot work here."""
    handler = visible_handler("%(levelname)s %(name)s: %(message)s")
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    for claim in rival_claims():
        log.warning(claim)
    return asyncio.run(_run(settings))


def build_driver(settings: AgentFile) -> GpuDriver:
    """The driver that the settings name; nothing is opened yet."""
    if settings.driver == "simulated":
        return simulated_driver(settings.node, settings.simulated)
    from agent.drivers.nvml.driver import NvmlDriver

    return NvmlDriver(settings.power_scope)


def simulated_driver(node: str, section: SimulatedSection) -> SimulatedDriver:
    """Simulated GPUs as configured, with a constant load."""
    card = SimulatedGpuModel(
        default_mw=mw_from_watts(section.default_watts),
        min_mw=mw_from_watts(section.min_watts),
        max_mw=mw_from_watts(section.max_watts),
        idle_mw=mw_from_watts(section.idle_watts),
        lag_s=section.lag_s,
        overshoot=section.overshoot,
    )
    gpus = [
        SimulatedGpu(f"GPU-{node}-{index:02d}", card, load_mw=mw_from_watts(section.load_watts))
        for index in range(section.gpus)
    ]
    for index in section.ignores_writes:
        gpus[index].ignores_writes = True
    for index, faults in section.faults.items():
        gpus[index].faults = {call: DriverErrorKind(kind) for call, kind in faults.items()}
    return SimulatedDriver(gpus)


@dataclass(slots=True)
class _Kubernetes:
    owners: KubernetesOwners
    pods: ListWatch[Pod]
    annotation_limits: AnnotationLimits | None
    events: KubernetesEvents


async def _run(settings: AgentFile) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    limit_repeats(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        driver = build_driver(settings)
    except (ValueError, IndexError) as error:
        raise UsageError(f"simulated GPUs: {error}") from error
    async with AsyncExitStack() as stack:
        kubernetes = await _kubernetes(settings, stack)
        if settings.nats is None and (kubernetes is None or kubernetes.annotation_limits is None):
            raise UsageError(
                "no source of limits: name a bus (--nats-url), or run with Kubernetes and --safe-default-watts"
            )
        owners = kubernetes.owners if kubernetes else NoOwners()
        annotation_limits = kubernetes.annotation_limits if kubernetes else None
        try:
            events = kubernetes.events if kubernetes else None
            service = PowerAgentService(
                settings.for_service(),
                _bus_source(settings, stack),
                driver,
                owners,
                annotation_limits=annotation_limits,
                events=events,
            )
        except BadNameError as error:
            raise UsageError(f"node: {error}") from error
        return await _serve(settings, service, kubernetes, stop)


async def _serve(
    settings: AgentFile,
    service: PowerAgentService,
    kubernetes: _Kubernetes | None,
    stop: asyncio.Event,
) -> int:
    port = settings.http.port
    server = None if port is None else _health_server(settings, port, service)
    # What was imported lives as long as the process: out of the collector's sight.
    gc.collect()
    gc.freeze()
    running = [asyncio.create_task(_alone(settings, service), name="agent")]
    if kubernetes is not None:
        kubernetes.owners.gpus = service.node_gpus
        kubernetes.pods.on_change(service.wake)
        running.append(asyncio.create_task(kubernetes.pods.run(), name="pods"))
    if server is not None:
        running.append(asyncio.create_task(server.run(), name="http"))
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait([*running, stopping], return_when=asyncio.FIRST_COMPLETED)
    # An orderly stop may take as long as two calls to a GPU that hangs.
    await ended(*running, stopping, again_s=AGAIN_S + 2 * service.settings.call_timeout_s)
    return _verdict(running)


def _health_server(settings: AgentFile, port: int, service: PowerAgentService) -> AgentHealthServer:
    # Imported here, because an agent without the server does not need the 4 MB.
    from agent.runtime.health import AgentHealthServer
    from agent.runtime.instruments import AgentInstruments

    return AgentHealthServer(service, AgentInstruments(service).page, host=settings.http.host, port=port)


async def _alone(settings: AgentFile, service: PowerAgentService) -> None:
    """Nothing is read or set while another agent of this node runs."""
    async with single_instance(settings.lock_file):
        await service.run()


def _verdict(tasks: list[asyncio.Task[None]]) -> int:
    for task in tasks:
        error = None if task.cancelled() else task.exception()
        for one in error.exceptions if isinstance(error, BaseExceptionGroup) else (error,):
            if isinstance(one, LibraryMismatchError):
                raise CliError(f"{one}: library and driver differ; start the agent again") from one
            if isinstance(one, OSError):
                raise UsageError(f"{task.get_name()}: {one}") from one
            if one is not None:
                raise one
    return 0


def bus_of_agent(bus: BusSettings, node: str) -> BusSettings:
    """The settings of a node's connection. An inbox prefix that ends in the node's name has its dots as ``_``, as the
    permissions of `deploy/nats/roles.py` have: where a DaemonSet fills the name in, nothing else can replace them."""
    prefix = bus.inbox_prefix
    if prefix.endswith(f"_{node}"):
        prefix = prefix.removesuffix(node) + node.replace(".", "_")
    return bus.model_copy(update={"name": f"wattscale-agent-{node}", "inbox_prefix": prefix})


def _bus_source(settings: AgentFile, stack: AsyncExitStack) -> BusSource | None:
    """A function that connects, retrying until the server is there; None without a bus."""
    if settings.nats is None:
        return None
    named = bus_of_agent(settings.nats, settings.node)

    async def connected() -> Bus:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            try:
                bus = await connect(named)
            except BusError as error:
                pause_s = backoff.next_s()
                log.warning("%s; trying again in %.1f s", error, pause_s)
                await asyncio.sleep(pause_s)
                continue
            stack.push_async_callback(bus.close)
            return bus

    return connected


async def _kubernetes(settings: AgentFile, stack: AsyncExitStack) -> _Kubernetes | None:
    section = settings.kubernetes
    inside = "KUBERNETES_SERVICE_HOST" in os.environ
    if section.mode == "off" or (section.mode == "auto" and section.kubeconfig is None and not inside):
        return None
    try:
        access = find_access(section.kubeconfig)
    except NoAccessError as error:
        raise UsageError(f"kubernetes: {error}") from error
    api = await stack.enter_async_context(KubernetesApi(access))
    pods = pods_of_node(api, settings.node)
    kubelet = PodResources(section.pod_resources_socket)
    labels = PodLabels(section.deployment_label, section.pool_label, section.role_label)
    owners = KubernetesOwners(pods, pod_resources=kubelet, processes=ProcFs(section.proc_root), labels=labels)
    events = KubernetesEvents(api, settings.node)
    return _Kubernetes(owners, pods, _annotation_limits(settings, owners, events), events)


def _annotation_limits(
    settings: AgentFile, owners: KubernetesOwners, events: KubernetesEvents
) -> AnnotationLimits | None:
    if not settings.annotations.enabled:
        return None
    safe = settings.annotations.safe_default_watts
    if safe is None:
        raise UsageError(
            "annotations need --safe-default-watts (about 70 % of the card's power), or annotations.enabled: false"
        )
    return AnnotationLimits(
        owners,
        safe_default_mw=mw_from_watts(safe),
        alone=settings.nats is None,
        clock=monotonic,
        state=ManagedState(settings.state_file),
        events=events,
    )
