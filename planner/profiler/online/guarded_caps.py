"""Power limits of a run, held by a guard process: it sets them, and puts back what it found when this end of its pipe
closes, in whatever way this process ends. Nothing here writes a limit.

The guard answers each line of JSON with one: first what it found, then what is in force after each order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from bus_schemas.units import mw_from_watts

SETTLE_S = 2.0
"""Until a new limit is in force and what was drawn above it has passed: the settle time of the planner's ledger."""
ANSWERS_WITHIN_S = 60.0
RESTORES_WITHIN_S = 120.0


class CapError(Exception):
    """Limits that cannot be held. The message is one line."""


class CapLostError(CapError):
    """A cap that another one took the place of while it was measured under: it may be asked for again."""


class CapHolder(Protocol):
    """Holds the GPUs of one engine under a cap."""

    async def hold(self, tp: int, watts: float) -> None:
        """Put the GPUs of an engine of ``tp`` GPUs under a limit each, and wait until it is in force.

        Raises CapError.
        """
        ...

    async def check(self, tp: int, watts: float) -> None:
        """Raises CapError where the limit in force is another now; CapLostError where ``hold`` may bring it back."""
        ...


@dataclass(frozen=True, slots=True)
class FoundLimit:
    """One GPU as the guard found it, in milliwatts."""

    found_mw: int
    min_mw: int
    max_mw: int
    model: str


class GuardedCaps:
    """A guard process. ``gpus_of``: the GPUs of an engine of a TP size. ``log``: what the guard prints goes there."""

    def __init__(
        self,
        words: Sequence[str],
        gpus_of: Callable[[int], tuple[str, ...]],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._words = tuple(words)
        self._gpus_of = gpus_of
        self._log = log
        self._environment = environment
        self._settle_s = settle_s
        self._process: asyncio.subprocess.Process | None = None
        self._in_force: dict[str, int] = {}
        self.found: dict[str, FoundLimit] = {}
        self.left: tuple[str, ...] = ()
        """After the end: a line for each GPU whose limit was not put back."""

    async def __aenter__(self) -> Self:
        """Start the guard. Raises CapError where it refuses."""
        with self._log.open("ab") as output:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self._words,
                    env=self._environment,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=output,
                    start_new_session=True,
                )
            except OSError as error:
                raise CapError(f"cannot start {self._words[0]}: {error.strerror or error}") from error
        try:
            answer = await self._answer(ANSWERS_WITHIN_S)
            self.found = {gpu: FoundLimit(**each) for gpu, each in answer["found"].items()}
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def hold(self, tp: int, watts: float) -> None:
        """Put the GPUs of an engine of ``tp`` GPUs under a limit each, and wait until it is in force.

        Raises CapError.
        """
        wanted = dict.fromkeys(self._gpus_of(tp), mw_from_watts(watts))
        if all(self._in_force.get(gpu) == mw for gpu, mw in wanted.items()):
            return
        await self._ask({"set": wanted})
        self._in_force.update(wanted)
        await asyncio.sleep(self._settle_s)
        await self.check(tp, watts)

    async def check(self, tp: int, watts: float) -> None:
        """Raises CapError where the limit in force is another now."""
        await self._ask({"check": dict.fromkeys(self._gpus_of(tp), mw_from_watts(watts))})

    async def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        process = self._running()
        assert process.stdin is not None  # noqa: S101 - a pipe
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            await process.stdin.drain()
        except (ConnectionError, OSError):
            raise self._ended() from None
        return await self._answer(ANSWERS_WITHIN_S)

    async def _answer(self, within_s: float) -> dict[str, Any]:
        process = self._running()
        assert process.stdout is not None  # noqa: S101 - a pipe
        try:
            async with asyncio.timeout(within_s):
                line = await process.stdout.readline()
        except TimeoutError:
            raise CapError(
                f"the guard of the power limits does not answer within {within_s:g} s ({self._log})"
            ) from None
        if not line.endswith(b"\n"):
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise CapError(str(answer["refused"]))
        return answer

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the guard is used as a context manager")
        return self._process

    def _ended(self) -> CapError:
        return CapError(f"the guard of the power limits ended; limits may not be what they were ({self._log})")

    async def _end(self) -> None:
        """Close the pipe and wait until the limits are back. A guard that takes too long goes on by itself."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - pipes
        with contextlib.suppress(ConnectionError, OSError):
            process.stdin.close()
        try:
            async with asyncio.timeout(RESTORES_WITHIN_S):
                rest = await process.stdout.read()
                await process.wait()
        except TimeoutError:
            self.left = (f"the guard of the power limits still restores them ({self._log})",)
            return
        lines = [json.loads(line) for line in rest.splitlines() if line.startswith(b'{"left"')]
        if lines:
            self.left = tuple(lines[-1]["left"])
        elif self.found:
            self.left = (f"the guard of the power limits ended without a word; read the limits ({self._log})",)
