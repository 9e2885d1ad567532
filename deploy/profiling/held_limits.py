"""Power limits that a profiling run has set for a time: only ever at or below what was found, and put back at the end.

A file names what was found and what was set, so that the next run puts back the former where this process was killed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.ports import DriverError, GpuDriver, GpuInfo
from agent.runtime.boot import machine_boot
from bus_schemas.regular_files import read_regular
from deploy.profiling.durable_json import replace_json

FILE_BYTES = 1 << 20
RETRY_S = 1.0
TRIES = 60
"""How often a limit is put back before the GPU is given up, a retry apart."""


class HeldLimitError(Exception):
    """A limit that cannot be held. The message is one line."""


class HeldLimits:
    """The limits of some GPUs. ``file`` survives this process.

    ``owner``: this process, in a text of its own; ``before``: who had the right to set limits before it. What an
    earlier run left is believed only where nobody else had the right since.

    Raises HeldLimitError where a GPU does not answer.
    """

    def __init__(
        self,
        driver: GpuDriver,
        gpus: Sequence[str],
        file: Path,
        *,
        owner: str,
        before: str,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._driver = driver
        self._file = file
        self._owners: tuple[str, ...] = (owner,)
        self._pause = pause
        self._set_mw: dict[str, int] = {}
        self.infos = self._described(gpus)
        self.found_mw = {gpu: self._requested_mw(gpu) for gpu in gpus}
        self._others: dict[str, dict[str, int]] = {}
        self._adopt(before)

    def set(self, wanted_mw: Mapping[str, int]) -> None:
        """Set limits and read them back. Raises HeldLimitError: none may be above what was found, nor take the place of
        what another program set meanwhile.
        """
        for gpu, mw in wanted_mw.items():
            info, found = self.infos[gpu], self.found_mw[gpu]
            if not info.min_mw <= mw <= info.max_mw:
                raise HeldLimitError(f"{_named(info)} takes {info.min_mw / 1000:g} to {_w(info.max_mw)}, not {_w(mw)}")
            if mw > found:
                raise HeldLimitError(
                    f"{_named(info)} has a limit of {_w(found)}; a profile only lowers limits, and {_w(mw)} is above it"
                )
            now, ours = self._requested_mw(gpu), self._set_mw.get(gpu, found)
            if now not in (ours, mw):
                raise HeldLimitError(_second_writer(info, now, ours))
        self._keep({**self._set_mw, **wanted_mw})
        for gpu, mw in wanted_mw.items():
            if self._requested_mw(gpu) != mw:
                self._write(gpu, mw)
        self.check(wanted_mw)

    def check(self, wanted_mw: Mapping[str, int]) -> None:
        """Raises HeldLimitError where another limit is in force: a second writer, a reset, another limiter."""
        for gpu, mw in wanted_mw.items():
            info = self.infos[gpu]
            try:
                reading = self._driver.read(gpu)
            except DriverError as error:
                raise HeldLimitError(f"{_named(info)}: its limit cannot be read: {error}") from error
            if reading.requested_mw is not None and reading.requested_mw != mw:
                raise HeldLimitError(_second_writer(info, reading.requested_mw, mw))
            if reading.enforced_mw is not None and reading.enforced_mw != mw:
                raise HeldLimitError(
                    f"{_named(info)} enforces {_w(reading.enforced_mw)} where {_w(mw)} was set: another limiter "
                    "(chassis, heat) holds it lower"
                )

    def restore(self) -> tuple[str, ...]:
        """Put back what was found, each GPU by itself. Returns a line for each that could not be."""
        if not self._set_mw:
            return ()
        with ThreadPoolExecutor(len(self._set_mw)) as pool:
            lines = tuple(line for line in pool.map(self._restored, self._set_mw) if line)
        if not lines and not self._others:
            self._file.unlink(missing_ok=True)
        return lines

    def _restored(self, gpu: str) -> str:
        """The empty text, or why this GPU does not have the limit that was found on it."""
        why = ""
        for attempt in range(TRIES):
            if attempt:
                self._pause(RETRY_S)
            try:
                found, now = self.found_mw[gpu], self._requested_mw(gpu)
                if now == found:
                    return ""
                if now != self._set_mw[gpu] and now < found:
                    return (
                        f"{_named(self.infos[gpu])}: another program set {_w(now)} meanwhile; it is left so (found: "
                        f"{_w(found)})"
                    )
                self._write(gpu, found)
                if self._requested_mw(gpu) == found:
                    return ""
                why = "the driver takes the limit and does not keep it"
            except HeldLimitError as error:
                why = str(error)
        return f"{_named(self.infos[gpu])}: {_w(self.found_mw[gpu])} could not be put back: {why}"

    def _described(self, gpus: Sequence[str]) -> dict[str, GpuInfo]:
        try:
            known = {info.gpu: info for info in self._driver.enumerate()}
        except DriverError as error:
            raise HeldLimitError(f"the GPU driver does not answer: {error}") from error
        if missing := [gpu for gpu in gpus if gpu not in known]:
            raise HeldLimitError(f"no GPU {missing[0]} answers on this node")
        return {gpu: known[gpu] for gpu in gpus}

    def _requested_mw(self, gpu: str) -> int:
        try:
            reading = self._driver.read(gpu)
        except DriverError as error:
            raise HeldLimitError(f"{_named(self.infos[gpu])}: its limit cannot be read: {error}") from error
        limit = reading.requested_mw if reading.requested_mw is not None else reading.enforced_mw
        if limit is None:
            raise HeldLimitError(f"{_named(self.infos[gpu])} reports no power limit")
        return limit

    def _write(self, gpu: str, mw: int) -> None:
        try:
            self._driver.set_limit(gpu, mw)
        except DriverError as error:
            raise HeldLimitError(f"{_named(self.infos[gpu])}: {_w(mw)} cannot be set: {error}") from error

    def _adopt(self, before: str) -> None:
        """What the run ``before`` found, where its limits are still set since the same start of the machine."""
        try:
            kept = json.loads(read_regular(self._file, FILE_BYTES))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise HeldLimitError(f"{self._file}: cannot be read: {error}; read the limits, and delete it") from error
        try:
            if kept["boot"] != machine_boot() or before not in kept["owners"]:
                return
            for gpu, each in kept["gpus"].items():
                if gpu not in self.found_mw:
                    self._others[gpu] = each
                elif self.found_mw[gpu] == each["set_mw"]:
                    self.found_mw[gpu], self._set_mw[gpu] = int(each["found_mw"]), int(each["set_mw"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HeldLimitError(f"{self._file}: not a file of limits: {error!r}; delete it") from error
        if self._set_mw or self._others:
            # Believed under both names: this run may end before the lock has its own, or before it sets anything.
            self._owners = (before, *self._owners)
            self._keep(self._set_mw)

    def _keep(self, set_mw: Mapping[str, int]) -> None:
        """On the disk before the first limit is written."""
        ours = {gpu: {"found_mw": self.found_mw[gpu], "set_mw": mw} for gpu, mw in set_mw.items()}
        content = {"boot": machine_boot(), "owners": self._owners, "gpus": {**self._others, **ours}}
        try:
            replace_json(self._file, content)
        except OSError as error:
            raise HeldLimitError(f"{self._file}: cannot be written: {error.strerror or error}") from error
        self._set_mw = dict(set_mw)


def _second_writer(info: GpuInfo, now_mw: int, ours_mw: int) -> str:
    return (
        f"{_named(info)} has a limit of {_w(now_mw)} where {_w(ours_mw)} was set: another program "
        "sets limits here (a power agent without the lock file?); stop it while profiling"
    )


def _named(info: GpuInfo) -> str:
    return f"GPU {info.index} ({info.model})"


def _w(mw: int) -> str:
    return f"{mw / 1000:g} W"
