"""One profiling run: measures every point that is not in the log yet, and chooses the TP sizes on the way."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from planner.profiler.analysis.decode_window import StreamedAnswer, decode_window
from planner.profiler.analysis.profiled import Profiled
from planner.profiler.analysis.profiling_phase import ProfilingPhase
from planner.profiler.analysis.recommendation import Recommendation, Targets, recommend, unweighed
from planner.profiler.analysis.repeats import RepeatRule, is_done
from planner.profiler.analysis.sweep import (
    EngineLimits,
    Point,
    SweepSize,
    decode_isl,
    decode_points,
    narrowed,
    prefill_points,
    target_points,
    under_caps,
)
from planner.profiler.analysis.tables import MeasuredRepeat, at_full_power, counted_ms, rows
from planner.profiler.analysis.time_left import SweepProgress
from planner.profiler.online.draw_meter import DrawMeter, DrawSource
from planner.profiler.online.guarded_caps import CapError, CapHolder, CapLostError
from planner.profiler.online.measurement_log import MeasurementLog
from planner.profiler.online.openai_client import EngineClient, EngineError, fresh_prompt
from planner.profiler.online.own_lateness import OwnLateness

DEFAULT_MAX_CONTEXT = 16_384
"""The longest context of a sweep where none is asked for, as in Dynamo's own."""
WARMING_AT_ONCE = 8
WARM_UP_TOKENS = 16
MOST_DROPPED = 5
"""Measurements of one point whose cap was lost, after which the run ends."""
SWEEPING = {"prefill": ProfilingPhase.SWEEPING_PREFILL, "decode": ProfilingPhase.SWEEPING_DECODE}
IDLE_S = 3.0
"""How long the draw of an idle engine is measured."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What to measure. Limits that are None are the engine's own.

    ``caps_watts``: power limits, the highest first; empty: none is set.
    """

    targets: Targets
    tps: tuple[int, ...]
    size: SweepSize
    repeats: RepeatRule
    model: str | None
    max_context: int | None
    max_kv_tokens: int | None
    max_in_flight: int
    seed: int
    caps_watts: tuple[float, ...] = ()


class EngineSource(Protocol):
    """Where engines come from: started for a TP size, or one that runs already."""

    def engine(self, tp: int) -> AbstractAsyncContextManager[EngineClient]:
        """A client of an engine that takes requests. Raises EngineError."""
        ...


class ProfilingRun:
    """One run. ``clock``: monotonic seconds; ``show`` gets a line of progress; ``draw`` None: it is not measured.

    ``caps`` sets the limits that the options name.
    """

    def __init__(
        self,
        options: RunOptions,
        source: EngineSource,
        log: MeasurementLog,
        *,
        clock: Callable[[], float],
        show: Callable[[str], None],
        draw: Callable[[EngineClient, int], DrawSource] | None = None,
        caps: CapHolder | None = None,
    ) -> None:
        self._options = options
        self._source = source
        self._log = log
        self._clock = clock
        self._show = show
        self._draw = draw
        self._caps = caps
        self._rng = random.Random(options.seed)
        self._progress = SweepProgress()
        self._dropped: Counter[Point] = Counter()

    async def run(self) -> Profiled:
        """Measure all there is to measure. What is measured stays in the log.

        Raises EngineError, LogError or CapError.
        """
        options, log = self._options, self._log
        alone = len(options.tps) == 1
        for tp in options.tps:
            async with self._session(tp) as session:
                limits = await session.limits()
                points = self._target_points(tp, limits)
                if alone:
                    points = (*points, *self._sweep(tp, limits, prefill=True, decode=True))
                await self._measure(session, points, SWEEPING)
        if log.phase is not ProfilingPhase.BUILDING_CURVES:
            log.began(ProfilingPhase.SELECTING_CONFIG)
        found = self._recommendation()
        log.began(ProfilingPhase.BUILDING_CURVES)
        if not alone:
            for tp in dict.fromkeys((found.prefill.point.tp, found.decode.point.tp)):
                phases = {"prefill": tp == found.prefill.point.tp, "decode": tp == found.decode.point.tp}
                async with self._session(tp) as session:
                    await self._measure(session, self._sweep(tp, await session.limits(), **phases), {})
        table = rows(log.measurements)
        capped = table if self._options.caps_watts else ()
        return Profiled(at_full_power(table), found, log.engines, tuple(log.notes), capped)

    def _target_points(self, tp: int, limits: EngineLimits) -> tuple[Point, ...]:
        options = self._options
        try:
            points = target_points(tp, limits, options.size, options.targets.isl, options.targets.osl)
            return under_caps(points, options.caps_watts)
        except ValueError as error:
            raise EngineError(str(error)) from None

    def _sweep(self, tp: int, limits: EngineLimits, *, prefill: bool, decode: bool) -> tuple[Point, ...]:
        size = self._options.size
        points = (
            *(prefill_points(tp, limits, size) if prefill else ()),
            *(decode_points(tp, limits, size) if decode else ()),
        )
        return under_caps(points, self._options.caps_watts)

    def _recommendation(self) -> Recommendation:
        targets = self._options.targets
        table = rows(self._log.measurements)
        prefill = [row for row in table if row.point.phase == "prefill" and row.point.isl == targets.isl]
        decode = [row for row in table if row.point.phase == "decode" and row.point.isl == self._start(row.point.tp)]
        if why := unweighed((*prefill, *decode), targets.objective):
            self._log.note(why)
        kv_tokens = {tp: int(facts["max_kv_tokens"]) for tp, facts in self._log.engines.items()}
        try:
            return recommend(prefill, decode, targets, kv_tokens)
        except ValueError as error:
            raise EngineError(f"{error}; notes: {'; '.join(self._log.notes) or 'none'}") from None

    def _start(self, tp: int) -> int:
        """The prompt of the target's decode points; shorter than the target's near the engine's longest context."""
        targets, size = self._options.targets, self._options.size
        limit = int(self._log.engines[tp]["max_context"])
        start = decode_isl(targets.isl, targets.osl, size, limit)
        wanted, measured = targets.isl + targets.osl / 2, start + size.answer_tokens / 2
        if start == limit - size.answer_tokens and measured < wanted:
            self._log.note(
                f"TP {tp}: ITL is measured at a mean context of {measured:g} tokens, not at the target's {wanted:g}: "
                f"answers of {size.answer_tokens} tokens fit no further into {limit}"
            )
        return start

    @contextlib.asynccontextmanager
    async def _session(self, tp: int) -> AsyncIterator[_Session]:
        async with AsyncExitStack() as stack:
            yield _Session(tp, self._options, self._source, self._log, stack)

    async def _measure(self, session: _Session, points: Iterable[Point], phases: Mapping[str, ProfilingPhase]) -> None:
        """``phases``: what each phase of a point begins; empty: nothing begins."""
        left = [point for point in dict.fromkeys(points) if not is_done(self._values(point), self._options.repeats)]
        left.sort(key=lambda point: (-(point.cap_watts or 0.0), point.phase != "prefill"))
        if left and phases:
            self._log.began(ProfilingPhase.INITIALIZING)
            await session.client()
        if left and self._options.caps_watts:
            await self._measure_idle(session, left[0])
        while left:
            point = left[0]
            if phases:
                self._log.began(phases[point.phase])
            self._show(self._progress.line(left, point))
            began_s = self._clock()
            together = await self._measure_point(await session.client(), point)
            if together < point.in_flight:
                self._log.engine(
                    point.tp, {**self._log.engines[point.tp], "max_in_flight": together, "max_num_seqs": together}
                )
                self._log.note(
                    f"TP {point.tp}: no more than {together} requests ran at once; larger loads are left out"
                )
                left = [
                    each
                    for each in narrowed(left, point.tp, together)
                    if not is_done(self._values(each), self._options.repeats)
                ]
                continue
            self._progress.point_took(point, self._clock() - began_s)
            left.remove(point)

    def _values(self, point: Point) -> list[float]:
        return counted_ms([each for each in self._log.measurements if each.point == point])

    async def _measure_idle(self, session: _Session, point: Point) -> None:
        """The draw of the engine while it stands still, of each of its GPUs."""
        facts = self._log.engines[point.tp]
        if "idle_watts" in facts:
            return
        client = await session.client()
        await self._hold(point)
        async with self._meter(client, point) as meter:
            await asyncio.sleep(IDLE_S)
        draw = meter.mean()
        if draw.watts is not None:
            self._log.engine(point.tp, {**facts, "idle_watts": draw.watts / point.tp})

    async def _hold(self, point: Point) -> None:
        if self._caps is not None and point.cap_watts is not None:
            await self._caps.hold(point.tp, point.cap_watts)

    async def _keep(self, one: MeasuredRepeat) -> None:
        """Log a measurement whose cap was in force to its end. Another one is dropped, and the cap waited for again."""
        if self._caps is not None and one.point.cap_watts is not None:
            try:
                await self._caps.check(one.point.tp, one.point.cap_watts)
            except CapLostError as lost:
                await self._drop(one.point, lost)
                return
        self._log.measured(one)

    async def _drop(self, point: Point, lost: CapLostError) -> None:
        self._dropped[point] += 1
        if self._dropped[point] >= MOST_DROPPED:
            raise CapError(f"{MOST_DROPPED} measurements of one point lost their cap; the last: {lost}") from lost
        dropped = f"a measurement of TP {point.tp} {point.phase} under {point.cap_watts:g} W is dropped: {lost}"
        self._log.note(dropped)
        self._show(dropped)
        await self._hold(point)

    async def _measure_point(self, client: EngineClient, point: Point) -> int:
        """Repeat a point until it is done. Returns how many requests ran at once."""
        await self._hold(point)
        prompts: Sequence[list[int]] = ()
        if point.phase == "decode":
            prompts = [fresh_prompt(point.isl, random.Random(f"{point.isl} {i}")) for i in range(point.in_flight)]
            await self._warm(client, prompts)
        else:
            await client.ask(fresh_prompt(WARM_UP_TOKENS, self._rng), 1)
        while not is_done(self._values(point), self._options.repeats):
            if point.phase == "prefill":
                await self._keep(await self._prefill(client, point))
                continue
            together, found = await self._decode(client, point, prompts)
            if together < point.in_flight:
                return together
            if found is None:
                self._log.note(
                    f"TP {point.tp} decode isl {point.isl}, {point.in_flight} in flight: answers did not "
                    "overlap for long enough to measure; the point is left out"
                )
                return together
            await self._keep(found)
        return point.in_flight

    async def _warm(self, client: EngineClient, prompts: Sequence[list[int]]) -> None:
        """Bring prompts into the prefix cache, so that no prefill is measured with decode."""
        for start in range(0, len(prompts), WARMING_AT_ONCE):
            await _together(client.ask(prompt, 1) for prompt in prompts[start : start + WARMING_AT_ONCE])

    async def _prefill(self, client: EngineClient, point: Point) -> MeasuredRepeat:
        prompt = fresh_prompt(point.isl, self._rng)
        before, lateness = await client.first_tokens(), OwnLateness(client.clock)
        async with self._meter(client, point) as meter, lateness if before is None else contextlib.nullcontext():
            answer = await client.ask(prompt, 1)
        after = await client.first_tokens() if before is not None else None
        own_ms = None if before is None or after is None else after.since(before)
        if answer.cached_tokens:
            self._log.note(
                f"TP {point.tp} prefill isl {point.isl}: {answer.cached_tokens} tokens of a prompt that was "
                "never sent before came from the prefix cache"
            )
        draw = meter.mean()
        context = float(answer.prompt_tokens)
        return MeasuredRepeat(
            point, answer.ttft_ms, context, draw.watts, draw.samples, engine_ms=own_ms, late_ms=lateness.late_ms
        )

    async def _decode(
        self, client: EngineClient, point: Point, prompts: Sequence[list[int]]
    ) -> tuple[int, MeasuredRepeat | None]:
        tokens = self._options.size.answer_tokens
        async with self._meter(client, point) as meter:
            answers = await _together(client.ask(prompt, tokens) for prompt in prompts)
        window = decode_window(answers)
        if window.itl_ms is None:
            return window.together, None
        if any(answer.cached_tokens is not None and answer.cached_tokens < point.isl // 2 for answer in answers):
            self._log.note("prompts did not stay in the engine's prefix cache; ITL is measured after the last prefill")
        context = answers[0].prompt_tokens + tokens / 2
        draw = meter.mean(window.begin_s, window.end_s)
        return window.together, MeasuredRepeat(point, window.itl_ms, context, draw.watts, draw.samples)

    def _meter(self, client: EngineClient, point: Point) -> DrawMeter:
        return DrawMeter(self._draw(client, point.tp) if self._draw is not None else None, client.clock)


class _Session:
    """An engine of one TP size, started when the first point needs it."""

    def __init__(
        self, tp: int, options: RunOptions, source: EngineSource, log: MeasurementLog, stack: AsyncExitStack
    ) -> None:
        self._tp = tp
        self._options = options
        self._source = source
        self._log = log
        self._stack = stack
        self._client: EngineClient | None = None

    async def client(self) -> EngineClient:
        """The engine's client. Raises EngineError."""
        if self._client is None:
            self._client = await self._stack.enter_async_context(self._source.engine(self._tp))
            await self._client.facts(self._options.model)
        return self._client

    async def limits(self) -> EngineLimits:
        """What the engine takes: as logged, else as it states, bounded by the options. Raises EngineError."""
        if self._tp not in self._log.engines:
            self._log.engine(self._tp, await self._stated())
        facts = self._log.engines[self._tp]
        return EngineLimits(int(facts["max_context"]), int(facts["max_kv_tokens"]), int(facts["max_in_flight"]))

    async def _stated(self) -> dict[str, Any]:
        options, client = self._options, await self.client()
        facts = await client.facts(options.model)
        kv_tokens = options.max_kv_tokens or facts.max_kv_tokens
        if kv_tokens is None:
            raise EngineError(f"{client.url}: it does not state the size of its KV cache; give --max-kv-tokens")
        longest = options.max_context or min(facts.max_context or DEFAULT_MAX_CONTEXT, DEFAULT_MAX_CONTEXT)
        if facts.max_context is not None and longest > facts.max_context:
            raise EngineError(f"--max-context-length {longest}: {facts.model} takes at most {facts.max_context}")
        return {
            "model": facts.model,
            "max_context": min(longest, kv_tokens),
            "max_kv_tokens": kv_tokens,
            "max_in_flight": options.max_in_flight,
        }


async def _together(asks: Iterable[Any]) -> list[StreamedAnswer]:
    """All answers. The first failure cancels the others."""
    tasks = [asyncio.ensure_future(ask) for ask in asks]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
