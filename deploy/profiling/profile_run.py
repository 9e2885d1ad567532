"""One run of `wattscale profile`: from its options to its files and exit code."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.cli.errors import CliError, UsageError
from deploy.event_loop import run as on_event_loop
from deploy.profiling.engine_config import engine_command, read_engine_config
from deploy.profiling.node_gpus import NodeGpu, NoGpuError, NvmlDraw, NvmlNode, tp_sizes, usable
from deploy.profiling.written_results import make_folder, write_results
from planner.profiler.analysis.profiled import Profiled, unsettled
from planner.profiler.analysis.recommendation import Targets
from planner.profiler.analysis.repeats import FULL_REPEATS, QUICK_REPEATS
from planner.profiler.analysis.sweep import FULL, QUICK
from planner.profiler.online.draw_meter import DrawSource
from planner.profiler.online.engine_process import EndpointEngine, StartedEngines
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
    config: Path | None
    model: str | None
    tps: tuple[int, ...] | None
    gpus: tuple[int, ...] | None
    timeout_s: float
    isl: int
    osl: int
    ttft_ms: float
    itl_ms: float
    quick: bool
    max_context: int | None
    max_kv_tokens: int | None
    max_in_flight: int
    seed: int
    output: Path

    @property
    def targets(self) -> Targets:
        """What the recommendation is for."""
        return Targets(self.isl, self.osl, self.ttft_ms, self.itl_ms)


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
    with contextlib.ExitStack() as stack:
        node, gpus = _gpus(options, stack)
        tps = options.tps or ((1,) if options.endpoint else tp_sizes(len(gpus)))
        if gpus and max(tps) > len(gpus):
            raise UsageError(f"--tp {max(tps)}: there are {len(gpus)} GPUs")
        source, source_of_draw = _source(options, node, gpus), _draw(options, node, gpus)
        try:
            log = MeasurementLog(options.output, _identity(options, tps, gpus))
            stack.callback(log.close)
            run = ProfilingRun(
                _run_options(options, tps), source, log, clock=time.monotonic, show=_Shown().show, draw=source_of_draw
            )
            profiled = on_event_loop(_until_signal(run))
        except (EngineError, LogError) as error:
            raise CliError(str(error)) from error
    if profiled is None:
        print(f"interrupted; the same command goes on with {options.output}", file=sys.stderr)
        return INTERRUPTED
    _write(options, profiled)
    return 0


def _gpus(options: ProfileOptions, stack: contextlib.ExitStack) -> tuple[NvmlNode | None, tuple[NodeGpu, ...]]:
    """The node's GPUs; none where the endpoint's are not named, or where engines are started that need none.

    Raises UsageError.
    """
    if options.endpoint is not None and options.gpus is None:
        return None, ()
    try:
        node = NvmlNode()
    except NoGpuError as error:
        if options.gpus is None and options.tps is not None:
            return None, ()
        raise UsageError(f"{error}; with --tp and without --gpus, engines that need none are started") from error
    stack.callback(node.close)
    try:
        return node, usable(node.gpus, options.gpus, engine_runs=options.endpoint is not None)
    except NoGpuError as error:
        raise UsageError(str(error)) from error


def _source(options: ProfileOptions, node: NvmlNode | None, gpus: tuple[NodeGpu, ...]) -> EngineSource:
    if options.endpoint is not None:
        return EndpointEngine(options.endpoint, options.key, options.timeout_s)
    assert options.backend is not None and options.config is not None  # noqa: S101, PT018 - checked with the options
    config = read_engine_config(options.config)
    return StartedEngines(
        engine_command(options.backend, config, tuple(gpu.uuid for gpu in gpus)), options.output, options.timeout_s
    )


def _draw(
    options: ProfileOptions, node: NvmlNode | None, gpus: tuple[NodeGpu, ...]
) -> Callable[[EngineClient, int], DrawSource]:
    def source(client: EngineClient, tp: int) -> DrawSource:
        if node is None:
            return PageDraw(client)
        return NvmlDraw(node, tuple(gpu.index for gpu in gpus[: None if options.endpoint else tp]))

    return source


def _identity(options: ProfileOptions, tps: tuple[int, ...], gpus: tuple[NodeGpu, ...]) -> dict[str, Any]:
    """What makes two runs the same, so that one goes on with the other's measurements."""
    return {
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
    }


def _run_options(options: ProfileOptions, tps: tuple[int, ...]) -> RunOptions:
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
    )


async def _until_signal(run: ProfilingRun) -> Profiled | None:
    """The results; None where SIGINT or SIGTERM came first, after engines that the run started have ended."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(run.run())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return None


def _write(options: ProfileOptions, profiled: Profiled) -> None:
    source = {
        "model": next(iter(profiled.engines.values()))["model"],
        "backend": options.backend or options.endpoint,
        "source": "measured by wattscale profile",
    }
    rule = QUICK_REPEATS if options.quick else FULL_REPEATS
    write_results(options.output, profiled, options.targets, source, (*unsettled(profiled, rule), *profiled.notes))


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
