"""Builds the library with gcc, once per source and flags, into a folder that a library path can name."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SOURCES = (HERE / "nvml.c", HERE / "nvml.h")


def library_folder(*flags: str) -> Path:
    """A folder that holds ``libnvidia-ml.so.1``, built with ``flags``. Skips where there is no C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        message = "no C compiler (gcc) to build the NVML double with"
        if os.environ.get("WATTSCALE_REQUIRE_PARTS"):
            pytest.fail(message)
        pytest.skip(message)
    key = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES) + " ".join(flags).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"wattscale-nvml-double-{os.getuid()}-{key}"
    library = folder / "libnvidia-ml.so.1"
    if not library.exists():
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            built = Path(scratch) / "built.so"
            command = [compiler, "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", *flags]
            command += ["-Wl,-soname,libnvidia-ml.so.1", "-o", str(built), str(HERE / "nvml.c")]
            subprocess.run(command, check=True, capture_output=True, text=True)
            built.rename(library)  # Whole or not at all: several test workers build at once.
    return folder
