"""A whole run against the small HTTP engine, on the loop's virtual clock: no busy machine stretches its times."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.engine.engine_run import LinearTimes
from planner.profiler.analysis.laws import fit_decode, fit_prefill
from planner.profiler.analysis.profiled import Profiled
from planner.profiler.analysis.profiling_phase import ProfilingPhase
from planner.profiler.analysis.recommendation import Targets
from planner.profiler.analysis.repeats import QUICK_REPEATS, RepeatRule
from planner.profiler.analysis.sweep import QUICK, SweepSize
from planner.profiler.online.measurement_log import FILE, LogError, MeasurementLog, logged_phase
from planner.profiler.online.openai_client import EngineClient, EngineError
from planner.profiler.online.profiling_run import ProfilingRun, RunOptions
from tests.unit.planner.profiler.engine_in_process import engine

pytestmark = pytest.mark.looptime

TIMES = LinearTimes(200, 0.1, 20, 0.5, 0.001)
STEADY = RepeatRule(least=4, most=12, narrow=0.01)
SMALL = SweepSize(isls=5, contexts=2, loads=3, answer_tokens=24)
TARGETS = Targets(isl=500, osl=24, ttft_ms=400.0, itl_ms=40.0)


class Engines:
    """Running engines by TP size, and how often each was asked for."""

    def __init__(self, **urls: str) -> None:
        self.urls = {int(name.removeprefix("tp")): url for name, url in urls.items()}
        self.asked: list[int] = []

    @contextlib.asynccontextmanager
    async def engine(self, tp: int) -> AsyncIterator[EngineClient]:
        self.asked.append(tp)
        async with EngineClient(self.urls[tp], clock=asyncio.get_running_loop().time) as client:
            yield client


def options(tps: tuple[int, ...] = (1,), size: SweepSize = SMALL, repeats: RepeatRule = QUICK_REPEATS) -> RunOptions:
    return RunOptions(TARGETS, tps, size, repeats, None, None, None, 20, 0)


async def profiled(
    folder: Path, engines: Engines, asked: RunOptions | None = None, shown: list[str] | None = None
) -> Profiled:
    asked = asked or options()
    log = MeasurementLog(folder, {"isl": asked.targets.isl})
    clock = asyncio.get_running_loop().time
    try:
        return await ProfilingRun(asked, engines, log, clock=clock, show=(shown or []).append).run()
    finally:
        log.close()


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(2, 10))])
async def test_parameters_drawn_at_random_are_found_within_5_percent(tmp_path, seed):
    rng = random.Random(seed)
    drawn = LinearTimes(
        prefill_base_ms=rng.uniform(50, 400),
        prefill_ms_per_token=rng.uniform(0.05, 0.3),
        itl_base_ms=rng.uniform(8, 40),
        itl_ms_per_request=rng.uniform(0.3, 1.5),
        itl_ms_per_kv_token=rng.uniform(0.0005, 0.002),
    )
    async with engine(drawn, noise=0.02, seed=seed) as url:
        found = await profiled(tmp_path, Engines(tp1=url), options(repeats=STEADY))
    prefill, decode = fit_prefill(found.prefill()), fit_decode(found.decode())
    wanted = (
        (prefill.base_ms, drawn.prefill_base_ms),
        (prefill.ms_per_token, drawn.prefill_ms_per_token),
        (decode.base_ms, drawn.itl_base_ms),
        (decode.ms_per_request, drawn.itl_ms_per_request),
        (decode.ms_per_kv_token, drawn.itl_ms_per_kv_token),
    )
    print([f"{got / put - 1:+.1%}" for got, put in wanted])
    for got, put in wanted:
        assert got == pytest.approx(put, rel=0.05)


async def test_the_sequence_limit_is_found_and_no_queue_is_measured(tmp_path):
    async with engine(TIMES, max_seqs=6) as url:
        found = await profiled(tmp_path, Engines(tp1=url))
    assert found.max_num_seqs == 6
    loads = [row.point.in_flight for row in found.table if row.point.phase == "decode"]
    assert max(loads) == 6
    assert any("no more than 6 requests ran at once" in note for note in found.notes)


async def test_the_best_tp_sizes_get_the_whole_sweep(tmp_path):
    slow, fast = TIMES, LinearTimes(150, 0.07, 9, 0.1, 0.0002)
    async with engine(slow) as one, engine(fast) as two:
        engines = Engines(tp1=one, tp2=two)
        found = await profiled(tmp_path, engines, options((1, 2)))
    # Twice the GPUs give less than twice the tokens for prefill, and more than that for decode.
    assert found.recommendation.prefill.point.tp == 1
    assert found.recommendation.decode.point.tp == 2
    assert engines.asked == [1, 2, 1, 2]
    assert len(found.prefill().isl_tokens) == SMALL.isls + 1
    assert len(set(found.decode().context_tokens)) == SMALL.contexts + 1


async def test_a_run_that_ended_early_goes_on_where_it_was(tmp_path):
    async with engine(TIMES) as url:
        whole = await profiled(tmp_path, Engines(tp1=url))
        path = tmp_path / FILE
        content = path.read_bytes()
        lines = content.splitlines(keepends=True)
        half = b"".join(lines[: len(lines) // 2])
        path.write_bytes(half + b'{"measurement":{"poi')
        again = await profiled(tmp_path, Engines(tp1=url))
        assert path.read_bytes().startswith(half)
        assert [row.point for row in again.table] == [row.point for row in whole.table]
        finished = path.read_bytes()
        engines = Engines()
        await profiled(tmp_path, engines)
        assert engines.asked == []
        assert path.read_bytes() == finished


async def test_progress_has_a_bar_and_the_time_left(tmp_path):
    shown: list[str] = []
    async with engine(TIMES) as url:
        log = MeasurementLog(tmp_path, {})
        clock = asyncio.get_running_loop().time
        await ProfilingRun(options(), Engines(tp1=url), log, clock=clock, show=shown.append).run()
        log.close()
    assert "0/" in shown[0]
    assert "time left not known yet" in shown[0]
    assert shown[-1].startswith("[#")
    assert "left: TP 1 decode isl" in shown[-1]


async def test_what_an_engine_does_not_state_must_be_given(tmp_path):
    async with engine(TIMES) as url:
        engines = Engines(tp1=url)
        with pytest.raises(EngineError, match=r"isl 500 and osl 24 do not fit: the engine's context is 400 tokens"):
            await profiled(tmp_path, engines, RunOptions(TARGETS, (1,), QUICK, QUICK_REPEATS, None, 400, None, 8, 0))
        for name, model, longest, line in (
            ("long", None, 9999, "--max-context-length 9999: demo takes at most 4096"),
            ("model", "other", None, "it serves demo, not other"),
        ):
            folder = tmp_path / name
            folder.mkdir()
            asked = RunOptions(TARGETS, (1,), QUICK, QUICK_REPEATS, model, longest, None, 8, 0)
            with pytest.raises(EngineError, match=line):
                await profiled(folder, engines, asked)


async def test_a_target_near_the_longest_context_is_measured_beside_it(tmp_path):
    async with engine(TIMES) as url:
        asked = RunOptions(TARGETS, (1,), QUICK, QUICK_REPEATS, None, 524, None, 2, 0)
        found = await profiled(tmp_path, Engines(tp1=url), asked)
    assert found.recommendation.decode.point.isl == 524 - QUICK.answer_tokens
    (note,) = [line for line in found.notes if "mean context" in line]
    assert "mean context of 504 tokens, not at the target's 512" in note


async def test_every_line_of_the_log_is_whole_json(tmp_path):
    async with engine(TIMES) as url:
        await profiled(tmp_path, Engines(tp1=url))
    kept = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert set(kept[0]) == {"format", "run"}
    assert any("engine" in line for line in kept)
    assert sum("measurement" in line for line in kept) > 20


@pytest.mark.parametrize("lines", ["[1]\n", '{"format": 1}\n[1]\n', "3\n"])
def test_a_log_that_holds_something_else_is_refused_in_one_line(lines: str, tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text(lines)
    with pytest.raises(LogError) as refused:
        MeasurementLog(tmp_path, {})
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


async def test_the_log_names_the_part_of_profiling_that_is_under_way(tmp_path):
    async with engine(TIMES) as url:
        await profiled(tmp_path, Engines(tp1=url))
        assert logged_phase(tmp_path) is ProfilingPhase.BUILDING_CURVES
        begun = [json.loads(line).get("phase") for line in (tmp_path / FILE).read_text().splitlines()]
        assert [each for each in begun if each] == [
            *("Initializing", "SweepingPrefill", "SweepingDecode", "SelectingConfig", "BuildingCurves"),
        ]
        await profiled(tmp_path, Engines(tp1=url))
    assert logged_phase(tmp_path) is ProfilingPhase.BUILDING_CURVES, "all is measured: nothing is swept again"


@pytest.mark.parametrize(
    "text", ["", "\n", '{"format":1}\n{"phase":"Swee', '{}\n{"phase":"Done"}\n', '{}\n{"phase":7}\n']
)
def test_what_names_no_part_of_it_is_its_beginning(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    assert logged_phase(tmp_path) is ProfilingPhase.INITIALIZING
