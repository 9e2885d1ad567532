"""Looks at real GPUs through the agent's own driver and sets nothing: cards, limits, draw, energy, processes.

Run ``python -m tests.gpu.read_only`` on a machine with an NVIDIA driver; prints JSON. Exit code 1 without one. The
write call is taken away from the driver before anything is asked, so that not even a mistake could set a limit.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any, NoReturn

from agent.drivers.nvml.driver import NvmlDriver
from agent.ports import DriverError


class ReadOnlyDriver(NvmlDriver):
    """The agent's driver without its write."""

    def set_limit(self, gpu: str, mw: int) -> NoReturn:
        raise AssertionError(f"nothing may be set here, and {mw} mW was asked for {gpu}")


def read_gpus(seconds: float = 2.0) -> dict[str, Any]:
    """Two looks ``seconds`` apart: the energy between them against the draw says whether both counters can be right."""
    driver = ReadOnlyDriver()
    version = driver.driver_version()
    infos = driver.enumerate()
    failed = {name: str(error) for name, error in driver.failed().items()}
    first = {info.gpu: driver.read(info.gpu) for info in infos}
    began = time.monotonic()
    time.sleep(seconds)
    second = {info.gpu: driver.read(info.gpu) for info in infos}
    took_s = time.monotonic() - began
    before = {gpu: reading.requested_mw for gpu, reading in first.items()}
    if before != {gpu: reading.requested_mw for gpu, reading in second.items()}:
        raise AssertionError("a limit changed while we looked, and it was not us")
    gpus = []
    for info in infos:
        old, new = first[info.gpu], second[info.gpu]
        energy = (
            None if old.energy_mj is None or new.energy_mj is None else (new.energy_mj - old.energy_mj) / took_s / 1000
        )
        gpus.append({"info": dataclasses.asdict(info), "reading": dataclasses.asdict(new), "watts_by_energy": energy})
    driver.close()
    return {"time": datetime.now(UTC).isoformat(), "driver": version, "gpus": gpus, "failed": failed}


def main() -> int:
    """Print it."""
    try:
        print(json.dumps(read_gpus(), indent=2))
    except DriverError as error:
        print(f"no GPU to look at: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
