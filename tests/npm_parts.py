"""Parts of tests that come from npm: installed once a machine, exactly as a lock beside the test pins them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest


def npm_folder(pinned: Path) -> Path:
    """Where the parts of ``pinned`` (package.json and its lock) are installed, by npm if need be.

    A skip where they are not available, a failure in CI.
    """
    digest = hashlib.sha256((pinned / "package-lock.json").read_bytes()).hexdigest()[:12]
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wattscale-tests"
    cache = caches / f"{pinned.name}-{digest}"
    if (cache / "node_modules" / ".package-lock.json").exists():
        return cache
    if shutil.which("npm") is None:
        _missing("npm is not on this machine")
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(pinned / name, cache)
    install = ["npm", "ci", "--no-audit", "--no-fund", "--silent", "--ignore-scripts"]
    try:
        subprocess.run(install, cwd=cache, check=True, capture_output=True, timeout=100)
    except (subprocess.SubprocessError, OSError) as error:
        _missing(f"npm cannot install {pinned.name}: {error}")
    return cache


def _missing(why: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)
