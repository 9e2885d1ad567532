"""The double inside this very process, under the real bindings."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.doubles.nvml.build import library_folder
from tests.doubles.nvml.state import FakeNvml

STATE_VARIABLE = "WATTSCALE_NVML_STATE"


@contextmanager
def loaded_nvml(folder: Path, count: int = 2) -> Iterator[FakeNvml]:
    """``count`` cards. The loader finds the library by its name because it is in the process already."""
    ctypes.CDLL(str(library_folder() / "libnvidia-ml.so.1"), mode=ctypes.RTLD_GLOBAL)
    fake = FakeNvml(folder / "nvml-state", count)
    before = os.environ.get(STATE_VARIABLE)
    os.environ[STATE_VARIABLE] = str(fake.path)
    try:
        yield fake
    finally:
        if before is None:
            del os.environ[STATE_VARIABLE]
        else:
            os.environ[STATE_VARIABLE] = before


def library_environment(fake: FakeNvml, *flags: str) -> dict[str, str]:
    """The environment for another process whose bindings load the double."""
    return {**os.environ, "LD_LIBRARY_PATH": str(library_folder(*flags)), STATE_VARIABLE: str(fake.path)}
