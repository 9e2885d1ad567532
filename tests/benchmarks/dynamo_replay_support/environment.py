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
    "annotated-types==0.8.0",
    "certifi==2026.10.19.post1",
    "cffi==2.1.1",
    "charset-normalizer==3.5.3",
    "cloudpickle==3.1.3",
    "cmdstanpy==1.3.2",
    "contourpy==1.3.3",
    "cryptography==50.0.2",
    "cycler==0.12.1",
    "Cython==3.3.1",
    "dateparser==1.5.0",
    "durationpy==0.11",
    "filterpy==2.0.0",
    "fonttools==4.68.0",
    "formulaic==1.2.2",
    "google-auth==2.63.0",
    "holidays==0.109",
    "idna==3.20",
    "interface_meta==2.0.1",
    "joblib==1.6.0",
    "kiwisolver==1.5.1",
    "kubernetes==32.0.1",
    "matplotlib==3.11.2",
    "msgspec==0.22.0",
    "narwhals==2.29.0",
    "numpy==2.4.6",
    "oauthlib==4.0.1",
    "packaging==26.4",
    "pandas==2.3.3",
    "patsy==1.0.3",
    "pillow==13.0.0",
    "plotly==7.1.0",
    "pmdarima==2.1.1",
    "prometheus-api-client==0.7.2",
    "prometheus_client==0.26.0",
    "prophet==1.5.0",
    "pyasn1==0.6.5",
    "pyasn1_modules==0.4.2",
    "pycparser==3.12",
    "pydantic==2.13.5",
    "pydantic_core==2.46.5",
    "pyparsing==3.3.3",
    "python-dateutil==2.9.0.post0",
    "pytz==2026.6",
    "PyYAML==6.0.4",
    "pyzmq==27.3.0",
    "redis==8.1.0",
    "regex==2026.11.19",
    "requests==2.34.2",
    "requests-oauthlib==2.0.0",
    "scikit-learn==1.9.1",
    "scipy==1.17.1",
    "six==1.17.0",
    "stanio==0.5.1",
    "statsmodels==0.15.0",
    "threadpoolctl==3.8.0",
    "tqdm==4.70.1",
    "typing-inspection==0.4.5",
    "typing_extensions==4.16.0",
    "tzdata==2026.6",
    "tzlocal==5.4.5",
    "urllib3==2.8.0",
    "websocket-client==1.9.2",
    "wrapt==2.5.2",
    "zstandard==0.25.0",
)
"""All that these need, each pinned: an index changes, and the comparison should not."""
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
    subprocess.run([*pip, "--no-deps", *UNTIED, *NEEDED], check=True)
    (home / _DONE).write_text("\n".join((*UNTIED, *NEEDED)))
    return interpreter
