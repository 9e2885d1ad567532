"""One engine as a process: from its options to its orderly end."""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from aiohttp import web

from deploy.cli.errors import UsageError
from deploy.demo.demo_profile import profile_of_both_phases
from deploy.engine.continuous_batch import ContinuousBatch
from deploy.engine.engine_app import EngineApp, EngineModel
from deploy.engine.engine_gpus import EngineGpus, OwnGpu, shared_gpus
from deploy.engine.engine_loop import EngineLoop
from deploy.engine.kv_blocks import KvBlocks
from deploy.engine.shared_gpu import NoSharedGpuError
from deploy.event_loop import run as on_event_loop
from planner.adapters.power_priors import GpuType, curve, gpu, phase_of
from planner.domain.pool import Role
from planner.domain.units import mw_from_watts
from planner.sim.cluster.engine_timing import (
    DEFAULT_MAX_BATCHED_TOKENS,
    DEFAULT_MAX_SEQS,
    DecodeLaw,
    EngineLaw,
    PrefillLaw,
    engine_law,
)
from planner.sim.cluster.sim_gpu import GpuCard

BACKLOG = 2048
"""Connections that wait to be accepted, as many as uvicorn lets wait: beyond them the kernel resets connections."""
LINEAR_CONTEXTS = 8
"""Longest contexts that the KV cache holds where neither profile nor option gives its size."""
LINGER_S = 10.0
"""How long the end of the process waits for connections whose last bytes are not read."""


@dataclass(frozen=True, slots=True)
class LinearTimes:
    """An engine's times as straight lines, in place of a profile."""

    prefill_base_ms: float
    prefill_ms_per_token: float
    itl_base_ms: float
    itl_ms_per_request: float
    itl_ms_per_kv_token: float

    def law(self, max_kv_tokens: int) -> EngineLaw:
        """The same as the plant's law, with the usual sizes of a batch."""
        base_s, token_s = self.prefill_base_ms / 1000, self.prefill_ms_per_token / 1000
        lengths = (1.0, 1001.0)
        seconds = tuple(base_s + isl * token_s for isl in lengths)
        decode = DecodeLaw(
            self.itl_base_ms / 1000,
            self.itl_ms_per_request / 1000,
            self.itl_ms_per_kv_token / 1000,
            max_kv_tokens,
            DEFAULT_MAX_SEQS,
        )
        return EngineLaw(PrefillLaw(lengths, seconds, base_s, DEFAULT_MAX_BATCHED_TOKENS), decode)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of one engine. Times are real seconds. ``linear`` None: the times of ``profile``, or the built-in one.
    Capacities that are None are the profile's.

    ``visible``: what ``CUDA_VISIBLE_DEVICES`` names, None where it is not set.
    """

    host: str = "127.0.0.1"
    port: int = 0
    model: str = "demo"
    role: Literal["prefill", "decode", "aggregated"] = "aggregated"
    seed: int = 0
    mean_answer_tokens: float = 128.0
    startup_s: float = 0.0
    profile: Path | None = None
    truth: float = 1.0
    linear: LinearTimes | None = None
    max_model_len: int = 32_768
    max_kv_tokens: int | None = None
    max_num_seqs: int | None = None
    max_batched_tokens: int | None = None
    prefix_cache: bool = True
    gpu: str = "h200"
    cap_watts: float | None = None
    gpu_folder: Path | None = None
    visible: tuple[str, ...] | None = None


def run_engine(options: EngineOptions) -> int:
    """Serve until SIGTERM, SIGINT or a drain, and then until every answer is complete. Raises UsageError."""
    law = _law(options)
    gpus = _gpus(options)
    try:
        on_event_loop(_serve(options, law, gpus))
    finally:
        gpus.release()
    return 0


def _law(options: EngineOptions) -> EngineLaw:
    if options.linear is not None:
        law = options.linear.law(options.max_model_len * LINEAR_CONTEXTS)
    else:
        law = engine_law(profile_of_both_phases(options.profile, options.gpu), options.truth)
    prefill, decode = law.prefill, law.decode
    assert prefill is not None and decode is not None  # noqa: S101, PT018 - profiles with one phase are refused
    return EngineLaw(
        replace(prefill, max_batched_tokens=options.max_batched_tokens or prefill.max_batched_tokens),
        replace(
            decode,
            max_seqs=options.max_num_seqs or decode.max_seqs,
            max_kv_tokens=options.max_kv_tokens or decode.max_kv_tokens,
        ),
    )


def _gpus(options: EngineOptions) -> EngineGpus:
    kind = gpu(options.gpu)
    card = card_of(kind)
    power_curve = curve(kind, phase_of(Role(options.role)))
    if options.gpu_folder is None:
        limit_mw = card.max_mw if options.cap_watts is None else mw_from_watts(options.cap_watts)
        if not card.min_mw <= limit_mw <= card.max_mw:
            least, most = card.min_mw / 1000, card.max_mw / 1000
            raise UsageError(f"--cap-watts {options.cap_watts:g}: a {options.gpu} takes {least:g} to {most:g} W")
        names = options.visible or ("0",)
        return EngineGpus([OwnGpu(name, card, limit_mw, time.monotonic) for name in names], power_curve)
    try:
        return EngineGpus(shared_gpus(options.gpu_folder, options.visible or (), time.monotonic), power_curve)
    except NoSharedGpuError as error:
        raise UsageError(str(error)) from error


def card_of(kind: GpuType) -> GpuCard:
    """A simulated card with the data sheet of a GPU type."""
    return GpuCard(
        model=f"simulated {kind.name.upper()}",
        default_mw=mw_from_watts(kind.tdp_watts),
        min_mw=mw_from_watts(kind.min_watts),
        max_mw=mw_from_watts(kind.tdp_watts),
        idle_mw=mw_from_watts(kind.idle_watts),
    )


async def _serve(options: EngineOptions, law: EngineLaw, gpus: EngineGpus) -> None:
    kv_tokens = law.decode.max_kv_tokens if law.decode is not None else 0
    batch = ContinuousBatch(law, KvBlocks(kv_tokens, prefix_cache=options.prefix_cache))
    loop = EngineLoop(options.model, batch, gpus, time.monotonic)
    model = EngineModel(options.model, options.max_model_len, options.seed, options.mean_answer_tokens)
    app = EngineApp(model, loop, uuid.uuid4().hex)
    runner = web.AppRunner(app.application(), access_log=None, handler_cancellation=True, shutdown_timeout=LINGER_S)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, options.host, options.port, backlog=BACKLOG).start()
        except OSError as error:
            raise UsageError(f"--port {options.port}: {error.strerror or error}") from error
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, app.drain)
        print(f"engine on http://{options.host}:{runner.addresses[0][1]}", flush=True)
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(loop.run()), group.create_task(loop.load(options.startup_s))]
            await app.emptied.wait()
            for part in parts:
                part.cancel()
    finally:
        await runner.cleanup()
