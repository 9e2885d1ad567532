"""A whole run under power caps against the small HTTP engine, on the loop's virtual clock: its power curve is found,
and planner and simulator load it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from deploy.engine.engine_run import LinearTimes
from deploy.engine.shared_gpu import SharedGpu, make_shared_gpu
from planner.adapters.profiles import load_profile
from planner.domain.power import PowerCurve
from planner.profiler.analysis.power_law import PowerFit, fit_power, phase_fit
from planner.profiler.analysis.profiled import Profiled
from planner.profiler.analysis.recommendation import Targets, lines
from planner.profiler.analysis.repeats import FULL_REPEATS, RepeatRule
from planner.profiler.analysis.sweep import FULL, SweepSize
from planner.profiler.online.guarded_caps import CapError
from planner.profiler.online.measurement_log import FILE, MeasurementLog
from planner.profiler.online.openai_client import EngineClient
from planner.profiler.online.profiling_run import ProfilingRun, RunOptions
from planner.profiler.results.power_curve_file import write_power_curve
from planner.profiler.results.profile_files import write_profile
from planner.sim.cluster.sim_gpu import H200, batch_share
from planner.sim.workload.scenario import disaggregated
from tests.unit.planner.profiler.engine_in_process import DECODE_POWER, engine

pytestmark = pytest.mark.looptime

TIMES = LinearTimes(200, 0.1, 20, 0.5, 0.001)
TARGETS = Targets(isl=500, osl=24, ttft_ms=800.0, itl_ms=80.0)
CAPS = (700.0, 600.0, 500.0, 425.0, 350.0, 300.0, 250.0, 200.0)


@dataclass(frozen=True, slots=True)
class Effort:
    """How much a run measures."""

    size: SweepSize
    repeats: RepeatRule
    most_in_flight: int


BRIEF = Effort(SweepSize(isls=3, contexts=1, loads=2, answer_tokens=24), RepeatRule(least=2, most=4, narrow=0.05), 8)
# Answers and repeats as without --quick: one request draws little, so few of the caps hold it back, and only slightly.
THOROUGH = Effort(replace(BRIEF.size, answer_tokens=FULL.answer_tokens), FULL_REPEATS, 2)


@dataclass(slots=True)
class GpuDraw:
    """The draw of the engine's only GPU."""

    gpu: SharedGpu
    every_s: float = 0.05

    async def watts(self) -> float:
        return self.gpu.read().draw_mw / 1000


class HeldGpu:
    """Sets the limit of the engine's only GPU, and notes the order."""

    def __init__(self, gpu: SharedGpu) -> None:
        self._gpu = gpu
        self.held: list[float] = []

    async def hold(self, tp: int, watts: float) -> None:
        if self._gpu.set_limit(round(watts * 1000)) != round(watts * 1000):
            raise CapError("not in force")
        if not self.held or self.held[-1] != watts:
            self.held.append(watts)
            await asyncio.sleep(2.0)

    def draw(self, client: EngineClient, tp: int) -> GpuDraw:
        return GpuDraw(self._gpu)

    async def check(self, tp: int, watts: float) -> None:
        if self._gpu.limit_mw != round(watts * 1000):
            raise CapError(f"{self._gpu.limit_mw} mW is in force")


class OneEngine:
    """An engine that runs."""

    def __init__(self, url: str) -> None:
        self._url = url

    @contextlib.asynccontextmanager
    async def engine(self, tp: int) -> AsyncIterator[EngineClient]:
        async with EngineClient(self._url, clock=asyncio.get_running_loop().time) as client:
            yield client


def shared_gpu(folder: Path) -> SharedGpu:
    clock = asyncio.get_running_loop().time
    return SharedGpu(make_shared_gpu(folder, "GPU-0", H200, H200.max_mw, clock()), clock)


async def profiled(
    folder: Path, url: str, caps: HeldGpu, *, caps_watts: tuple[float, ...] = CAPS, effort: Effort = BRIEF
) -> Profiled:
    most = effort.most_in_flight
    options = RunOptions(TARGETS, (1,), effort.size, effort.repeats, None, None, None, most, 0, caps_watts)
    log = MeasurementLog(folder, {})
    clock = asyncio.get_running_loop().time
    try:
        run = ProfilingRun(options, OneEngine(url), log, clock=clock, show=lambda _: None, draw=caps.draw, caps=caps)
        return await run.run()
    finally:
        log.close()


def close(fit: PowerFit, wanted: PowerCurve, share: float = 1.0) -> None:
    """Every parameter within 5 %, and the fit says that it is."""
    put = (share * wanted.p_s_mw / 1000, share * wanted.p_u_mw / 1000, wanted.alpha)
    shown = zip(put, fit.parameters.items(), strict=True)
    print([f"{name} {true:.4g} {got:.4g} +- {margin:.2g}" for true, (name, (got, margin)) in shown])
    for true, (got, _) in zip(put, fit.parameters.values(), strict=True):
        assert got == pytest.approx(true, rel=0.05)
    assert fit.uncertain == ()


@pytest.mark.parametrize(
    ("seed", "effort"),
    [
        pytest.param(0, BRIEF, marks=pytest.mark.long, id="0"),
        *(pytest.param(seed, THOROUGH, marks=pytest.mark.nightly, id=f"{seed}") for seed in range(1, 10)),
    ],
)
async def test_a_power_curve_drawn_at_random_is_found_within_5_percent_and_loaded(tmp_path, seed, effort):
    rng = random.Random(seed)
    p_u = rng.randrange(530_000, 640_000)
    true = replace(DECODE_POWER, p_u_mw=p_u, p_s_mw=round(p_u * rng.uniform(0.2, 0.3)), alpha=rng.uniform(0.3, 0.7))
    gpu = shared_gpu(tmp_path)
    async with engine(TIMES, noise=0.003, seed=seed, shared=gpu, max_model_len=800, power=true) as url:
        found = await profiled(tmp_path, url, caps := HeldGpu(gpu), effort=effort)
    assert caps.held == list(CAPS)
    fits = fit_power(found, 200.0, 700.0)
    most = effort.most_in_flight
    assert [(fit.phase, fit.most_batch) for fit in fits] == [("prefill", 1), ("decode", 1), ("decode", most)]
    prefill = fits[0].curve
    assert prefill is not None
    for fit, share in zip(fits, (1.0, batch_share(1), batch_share(most)), strict=True):
        close(fit, true, share)
    # An engine that stands still draws what an idle card does.
    assert prefill.idle_mw == pytest.approx(H200.idle_mw, rel=0.05)
    assert all(fit.error is not None and fit.error < 0.01 for fit in fits)

    write_profile(tmp_path, found, TARGETS, {"model": "demo"})
    write_power_curve(tmp_path, fits, "simulated")
    read = load_profile(tmp_path)
    decode = phase_fit(fits, "decode")
    assert decode is not None
    assert (read.prefill_curve, read.decode_curve) == (prefill, decode.curve)
    assert [pool.curve for pool in disaggregated(read, "h200")] == [read.prefill_curve, read.decode_curve]
    # The profile is that of the highest cap, and the rest is beside it.
    assert len(found.capped) == len(CAPS) * len(found.table)
    assert read.prefill == found.prefill()
    said = lines(found.recommendation, TARGETS)
    assert sum(line.startswith("Suggested cap, ") for line in said) == 2
    assert json.loads((tmp_path / "power_curve.json").read_text())["fits"][0]["rmse"] < 0.01


async def test_the_draw_of_decode_is_without_the_step_that_reads_the_prompts(tmp_path):
    gpu = shared_gpu(tmp_path)
    # Two seconds for the prompts, at the phase's whole draw; then about two that draw what the batch does.
    async with engine(LinearTimes(2000, 0.1, 100, 0.5, 0.001), shared=gpu, max_model_len=600) as url:
        found = await profiled(tmp_path, url, HeldGpu(gpu), caps_watts=(700.0,))
    decode = [row for row in found.table if row.point.phase == "decode"]
    assert {row.point.in_flight for row in decode} == {1, 8}
    for row in decode:
        # The draw follows the work with a lag of 0.15 s.
        wanted = batch_share(row.point.in_flight) * DECODE_POWER.p_u_mw / 1000
        assert row.watts == pytest.approx(wanted, rel=0.06)


async def test_a_cap_that_is_not_in_force_to_the_end_of_a_measurement_counts_nothing(tmp_path):
    gpu = shared_gpu(tmp_path)
    async with engine(TIMES, shared=gpu, max_model_len=600) as url:
        caps = HeldGpu(gpu)
        began = len(caps.held)

        async def other_writer() -> None:
            while len(caps.held) < began + 2:
                await asyncio.sleep(0.05)
            await asyncio.sleep(3.0)
            gpu.set_limit(650_000)

        writer = asyncio.create_task(other_writer())
        with pytest.raises(CapError, match="650000 mW is in force"):
            await profiled(tmp_path, url, caps, caps_watts=(700.0, 400.0, 300.0))
        await writer
    kept = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    caps_of = [line["measurement"]["point"]["cap_watts"] for line in kept if "measurement" in line]
    assert set(caps_of) <= {700.0, 400.0}


async def test_a_run_under_caps_that_ended_early_goes_on_where_it_was(tmp_path):
    gpu = shared_gpu(tmp_path)
    async with engine(TIMES, shared=gpu, max_model_len=600) as url:
        whole = await profiled(tmp_path, url, HeldGpu(gpu), caps_watts=(700.0, 300.0))
        file = tmp_path / FILE
        content = file.read_bytes().splitlines(keepends=True)
        half = b"".join(content[: len(content) * 3 // 4])
        file.write_bytes(half)
        again = await profiled(tmp_path, url, caps := HeldGpu(gpu), caps_watts=(700.0, 300.0))
    assert caps.held == [300.0]
    assert file.read_bytes().startswith(half)
    assert [row.point for row in again.capped] == [row.point for row in whole.capped]
