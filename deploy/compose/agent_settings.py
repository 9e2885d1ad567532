"""The power agent's settings: a YAML file, then the environment, then flags, each stronger than the one before."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.runtime.agent_file import AgentFile
from deploy.compose.settings_layers import Merged, SettingsError
from deploy.compose.settings_loader import ENVIRONMENT, Loaded, Variables, name_variables, validated

VARIABLES = Variables("WATTSCALE_AGENT_", strict=True)
"""``WATTSCALE_AGENT_HTTP__PORT=9101`` sets ``http.port``."""


def load(
    file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any], *, in_child: bool = False
) -> Loaded[AgentFile]:
    """Settings in force. ``flags``: by dotted name, None where not given. Raises SettingsError.

    ``in_child``: file and environment are read by a child process, so that this one never loads YAML and
    pydantic-settings. Those would cost the agent 2.3 of its 57 MB for as long as it runs, and taking the modules out of
    ``sys.modules`` gives 0.2 back (measured with eight simulated GPUs). Only for a process without other threads.
    """
    merged = Merged()
    if file is not None or any(name.startswith(VARIABLES.prefix) for name in environ):
        merged = _read_in_child(file, environ) if in_child else _read(file, environ)
    for name, value in flags.items():
        if value is not None:
            merged.put(name.split("."), value, f"flag for {name}")
    return validated(AgentFile, merged)


def _read(file: Path | None, environ: Mapping[str, str]) -> Merged:
    from deploy.compose.settings_sources import read_environment, read_file

    merged = Merged()
    if file is not None:
        merged.put((), read_file(AgentFile, file), str(file))
    merged.put((), read_environment(AgentFile, VARIABLES, environ), ENVIRONMENT)
    name_variables(merged, VARIABLES, environ)
    return merged


def _read_in_child(file: Path | None, environ: Mapping[str, str]) -> Merged:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(writing, file, environ)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise SettingsError([f"settings: the process that reads them failed ({os.waitstatus_to_exitcode(status)})"])
    found: dict[str, Any] = json.loads(answer)
    if found["refused"]:
        raise SettingsError(found["refused"])
    return Merged(found["tree"], found["origins"], found["problems"])


def _answer(writing: int, file: Path | None, environ: Mapping[str, str]) -> None:
    """In the child: write what was read, or why nothing was, and end. Never returns."""
    status = 1
    try:
        found: dict[str, Any] = {"refused": []}
        try:
            merged = _read(file, environ)
            found |= {"tree": merged.tree, "origins": merged.origins, "problems": merged.problems}
        except SettingsError as error:
            found["refused"] = error.problems
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(found, default=str).encode())
        status = 0
    finally:
        # Not ``sys.exit``: the parent's handlers and buffers are the parent's.
        os._exit(status)
