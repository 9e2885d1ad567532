"""The referee's own Python environment: Dynamo 1.6.1 from PyPI, beside the project and never inside it.

Owns making it once and finding it again. Must never touch the project's environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

VERSION = "1.6.1"
UNTIED = (f"ai-dynamo=={VERSION}", f"ai-dynamo-runtime=={VERSION}")
"""Installed without their dependencies: one of them (``aisimulate``) is not in the package index."""
NEEDED = (
    "kubernetes>=32,<33",
    "msgspec",
    "pyzmq",
    "redis",
    "zstandard",
    "filterpy",
    "pmdarima==2.1.1",
    "pandas<3",
    "prophet>=1,<2",
    "prometheus-client",
    "pyyaml",
    "pydantic>=2.10.6,<2.14",
    "numpy",
    "scipy",
    "plotly",
    "prometheus-api-client",
)
_DONE = "wattscale-referee-ready"


def root() -> Path:
    """Where the environment lives; ``WATTSCALE_REFEREE_HOME`` moves it."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("WATTSCALE_REFEREE_HOME") or Path(cache) / "wattscale" / f"dynamo-{VERSION}")


def python() -> Path:
    """The environment's interpreter; made on the first call (about 500 MB, a few minutes)."""
    home = root()
    interpreter = home / "bin" / "python"
    if (home / _DONE).exists():
        return interpreter
    print(f"making {home} (once): {', '.join(UNTIED)}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", *UNTIED], check=True)
    subprocess.run([*pip, *NEEDED], check=True)
    (home / _DONE).write_text("\n".join((*UNTIED, *NEEDED)))
    return interpreter
