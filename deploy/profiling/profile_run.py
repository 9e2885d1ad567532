"""One run of `wattscale profile`: from its options to its files and exit code."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from deploy.cli.bus_address import address
from deploy.cli.bus_connection import reached
from deploy.cli.errors import CliError, NotNowError, UsageError
from deploy.cli.steer.sending import user_name
from deploy.engine.shared_gpu import SUFFIX, NoSharedGpuError, SharedGpu
from deploy.event_loop import run as on_event_loop
from deploy.profiling.capped_gpus import agent_owns, common_range_watts, guarded_caps, leased_caps, swept_caps
from deploy.profiling.engine_config import EngineConfig, engine_command
from deploy.profiling.gpu_folder import folder_gpus
from deploy.profiling.node_gpus import NodeGpu, NoGpuError, NvmlDraw, NvmlNode, tp_sizes, usable
from deploy.profiling.written_results import PowerResults, make_folder, write_results
from planner.profiler.analysis.power_law import fit_power
from planner.profiler.analysis.profiled import Profiled, unsettled
from planner.profiler.analysis.recommendation import Objective, Targets
from planner.profiler.analysis.repeats import FULL_REPEATS, QUICK_REPEATS
from planner.profiler.analysis.sweep import FULL, QUICK
from planner.profiler.online.draw_meter import DrawSource
from planner.profiler.online.engine_process import EndpointEngine, StartedEngines
from planner.profiler.online.guarded_caps import CapError, GuardedCaps
from planner.profiler.online.leased_caps import LeasedCaps
from planner.profiler.online.measurement_log import LogError, MeasurementLog
from planner.profiler.online.openai_client import EngineClient, EngineError
from planner.profiler.online.profiling_run import EngineSource, ProfilingRun, RunOptions

INTERRUPTED = 130
SHOWN_S = 5.0
"""Where progress is not on a terminal, at least so many seconds lie between two lines of it."""
SIMULATED_DRAW = "wattscale_engine_gpu_draw_watts"
SCRAPE_S = 0.25


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """Options of one run; None where the engine or the node decides."""

    endpoint: str | None
    key: str
    backend: str | None
    config: EngineConfig | None
    config_notes: tuple[str, ...]
    model: str | None
    tps: tuple[int, ...] | None
    gpus: tuple[int, ...] | None
    timeout_s: float
    isl: int
    osl: int
    ttft_ms: float
    itl_ms: float
    objective: Objective
    quick: bool
    max_context: int | None
    max_kv_tokens: int | None
    max_in_flight: int
    seed: int
    output: Path
    caps: tuple[int, ...]
    lock_file: Path
    gpu_folder: Path | None
    bus: argparse.Namespace
    """The options that name a bus."""

    @property
    def targets(self) -> Targets:
        """What the recommendation is for."""
        return Targets(self.isl, self.osl, self.ttft_ms, self.itl_ms, self.objective)


Holder: TypeAlias = GuardedCaps | LeasedCaps
"""Who keeps GPUs under caps."""


@dataclass(slots=True)
class PageDraw:
    """The draw that an engine with simulated GPUs states on its metrics page."""

    client: EngineClient
    every_s: float = SCRAPE_S

    async def watts(self) -> float | None:
        """The sum of its GPUs' draws now; None where it states none."""
        return await self.client.drawn_watts(SIMULATED_DRAW)


def run_profile(options: ProfileOptions) -> int:
    """Measure, write, print, and return the exit code: 0, or 130. Raises UsageError and CliError."""
    make_folder(options.output)
    for note in options.config_notes:
        print(f"note: {note}", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        node, gpus = _gpus(options, stack)
        tps = options.tps or ((1,) if options.endpoint else tp_sizes(len(gpus)))
        if gpus and max(tps) > len(gpus):
            raise UsageError(f"--tp {max(tps)}: there are {len(gpus)} GPUs")
        if options.caps and not gpus:
            raise UsageError("--caps: limits are set on GPUs of this node; name those of the engine with --gpus")
        guard = _holder(options, node, gpus)
        try:
            source, draw = _source(options, node, gpus), _draw(options, node, gpus)
            profiled = on_event_loop(_until_signal(_measured(options, tps, gpus, source, draw, guard)))
        except LogError as error:
            left = () if guard is None else guard.left
            raise NotNowError(str(error), *left, exit_code=CliError.exit_code) from error
        except (EngineError, CapError) as error:
            raise CliError(str(error), *(() if guard is None else guard.left)) from error
    if profiled is None:
        print(f"interrupted; the same command goes on with {options.output}", file=sys.stderr)
    else:
        _write(options, profiled, guard)
    if guard is not None and guard.left:
        raise CliError(*guard.left)
    return INTERRUPTED if profiled is None else 0


def _holder(options: ProfileOptions, node: NvmlNode | None, gpus: tuple[NodeGpu, ...]) -> Holder | None:
    """The planner where a bus is named, or where an agent owns the GPUs and its bus is known; else a guard process."""
    if not options.caps:
        return None
    names = tuple(gpu.uuid for gpu in gpus)
    at_once = options.endpoint is not None
    if not _leases(options):
        return guarded_caps(names, options.lock_file, options.gpu_folder, options.output, all_at_once=at_once)
    indices, folder = {gpu.uuid: gpu.index for gpu in gpus}, options.gpu_folder

    def limit_mw(gpu: str) -> int | None:
        if folder is not None:
            with contextlib.closing(SharedGpu(folder / f"{gpu}{SUFFIX}", time.monotonic)) as simulated:
                return simulated.limit_mw
        return None if node is None else node.limit_mw(indices[gpu])

    return LeasedCaps(
        lambda: reached(options.bus),
        {gpu.uuid: gpu.name for gpu in gpus},
        lambda tp: names if at_once else names[:tp],
        limit_mw,
        issued_by=user_name(),
    )


def _leases(options: ProfileOptions) -> bool:
    if options.bus.nats_url or options.bus.context:
        return True
    if not agent_owns(options.lock_file):
        return False
    try:
        address(options.bus)
    except UsageError:
        return False  # The guard's refusal names the agent, and how to name its bus.
    return True


async def _measured(
    options: ProfileOptions,
    tps: tuple[int, ...],
    gpus: tuple[NodeGpu, ...],
    source: EngineSource,
    draw: Callable[[EngineClient, int], DrawSource],
    guard: Holder | None,
) -> Profiled:
    async with contextlib.AsyncExitStack() as stack:
        caps: tuple[float, ...] = ()
        if guard is not None:
            await stack.enter_async_context(guard)
            swept = leased_caps if isinstance(guard, LeasedCaps) else swept_caps
            caps = swept(guard.found, options.caps)
        log = MeasurementLog(options.output, _identity(options, tps, gpus, caps))
        stack.callback(log.close)
        asked = _run_options(options, tps, caps)
        run = ProfilingRun(asked, source, log, clock=time.monotonic, show=_Shown().show, draw=draw, caps=guard)
        return await run.run()


def _gpus(options: ProfileOptions, stack: contextlib.ExitStack) -> tuple[NvmlNode | None, tuple[NodeGpu, ...]]:
    """The node's GPUs, or simulated ones; none where the endpoint's are not named, or where engines need none.

    Raises UsageError.
    """
    if options.gpu_folder is not None:
        return None, _simulated(options.gpu_folder, options.gpus)
    if options.endpoint is not None and options.gpus is None:
        return None, ()
    try:
        node = NvmlNode()
    except (NoGpuError, ImportError) as error:
        if options.gpus is None and options.tps is not None:
            return None, ()
        why = f"NVML's Python package is missing: {error}" if isinstance(error, ImportError) else str(error)
        raise NotNowError(f"{why}; with --tp and without --gpus, engines that need none are started") from error
    stack.callback(node.close)
    try:
        return node, usable(node.gpus, options.gpus, engine_runs=options.endpoint is not None)
    except NoGpuError as error:
        raise UsageError(str(error)) from error


def _simulated(folder: Path, wanted: tuple[int, ...] | None) -> tuple[NodeGpu, ...]:
    try:
        names = folder_gpus(folder)
        gpus = [NodeGpu(index, name, "simulated", False, ()) for index, name in enumerate(names)]
        return usable(gpus, wanted, engine_runs=True)
    except (NoSharedGpuError, NoGpuError) as error:
        raise UsageError(f"--gpu-folder: {error}") from error


def _source(options: ProfileOptions, node: NvmlNode | None, gpus: tuple[NodeGpu, ...]) -> EngineSource:
    if options.endpoint is not None:
        return EndpointEngine(options.endpoint, options.key, options.timeout_s)
    assert options.backend is not None and options.config is not None  # noqa: S101, PT018 - checked with the options
    return StartedEngines(
        engine_command(options.backend, options.config, tuple(gpu.uuid for gpu in gpus)),
        options.output,
        options.timeout_s,
        options.key,
    )


def _draw(
    options: ProfileOptions, node: NvmlNode | None, gpus: tuple[NodeGpu, ...]
) -> Callable[[EngineClient, int], DrawSource]:
    def source(client: EngineClient, tp: int) -> DrawSource:
        if node is None:
            return PageDraw(client)
        return NvmlDraw(node, tuple(gpu.index for gpu in gpus[: None if options.endpoint else tp]))

    return source


def _identity(
    options: ProfileOptions, tps: tuple[int, ...], gpus: tuple[NodeGpu, ...], caps: tuple[float, ...]
) -> dict[str, Any]:
    """What makes two runs the same, so that one goes on with the other's measurements."""
    return {
        **({"caps_watts": list(caps)} if caps else {}),
        "endpoint": options.endpoint,
        "backend": options.backend,
        "model": options.model,
        "tp": list(tps),
        "gpus": [gpu.uuid for gpu in gpus],
        "isl": options.isl,
        "osl": options.osl,
        "quick": options.quick,
        "max_context_length": options.max_context,
        "max_kv_tokens": options.max_kv_tokens,
        "max_in_flight": options.max_in_flight,
        **({} if options.config is None else _engine_identity(options.config)),
    }


def _engine_identity(config: EngineConfig) -> dict[str, Any]:
    """What makes two engines the same. Variables may hold secrets: their names and a digest are written down."""
    digest = hashlib.sha256(json.dumps(config.env, sort_keys=True).encode()).hexdigest()[:16]
    return {
        "model": config.model,
        "command": shlex.join(config.command) or None,
        "args": shlex.join(config.args) or None,
        "env": f"{', '.join(sorted(config.env))} ({digest})" if config.env else None,
    }


def _run_options(options: ProfileOptions, tps: tuple[int, ...], caps: tuple[float, ...]) -> RunOptions:
    return RunOptions(
        targets=options.targets,
        tps=tps,
        size=QUICK if options.quick else FULL,
        repeats=QUICK_REPEATS if options.quick else FULL_REPEATS,
        model=options.model,
        max_context=options.max_context,
        max_kv_tokens=options.max_kv_tokens,
        max_in_flight=options.max_in_flight,
        seed=options.seed,
        caps_watts=caps,
    )


async def _until_signal(run: Coroutine[Any, Any, Profiled]) -> Profiled | None:
    """The results; None where SIGINT or SIGTERM came first, after engines that the run started have ended and limits
    are what they were."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(run)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None


def _write(options: ProfileOptions, profiled: Profiled, guard: Holder | None) -> None:
    source = {
        "model": str(next(iter(profiled.engines.values()))["model"]),
        "backend": str(options.backend or options.endpoint),
        "source": "measured by wattscale profile",
    }
    rule = QUICK_REPEATS if options.quick else FULL_REPEATS
    notes = (*options.config_notes, *unsettled(profiled, rule), *profiled.notes)
    write_results(options.output, profiled, options.targets, source, notes, _power(profiled, guard))


def _power(profiled: Profiled, guard: Holder | None) -> PowerResults | None:
    if guard is None:
        return None
    least, most = common_range_watts(guard.found)
    gpu = ", ".join(sorted({each.model for each in guard.found.values()}))
    return PowerResults(fit_power(profiled, least, most), gpu)


class _Shown:
    """SweepProgress: on a terminal one line that changes, elsewhere a line every few seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last_s = float("-inf")

    def show(self, line: str) -> None:
        """Show a line of progress."""
        if self._terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._last_s >= SHOWN_S:
            self._last_s = time.monotonic()
            print(line, file=sys.stderr, flush=True)
