"""The power agent's settings: a YAML file, then the environment, then flags, each stronger than the one before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.runtime.agent_file import AgentFile
from deploy.compose.settings_layers import Merged
from deploy.compose.settings_loader import (
    ENVIRONMENT,
    Loaded,
    Variables,
    name_variables,
    validated,
)

VARIABLES = Variables("WATTSCALE_AGENT_", strict=True)
"""``WATTSCALE_AGENT_HTTP__PORT=9101`` sets ``http.port``."""


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Loaded[AgentFile]:
    """Settings in force. ``flags``: by dotted name, None where not given. Raises SettingsError."""
    merged = Merged()
    if file is not None or any(name.startswith(VARIABLES.prefix) for name in environ):
        # An agent that is set by flags alone does without the memory of YAML and pydantic-settings.
        from deploy.compose.settings_sources import read_environment, read_file

        if file is not None:
            merged.put((), read_file(AgentFile, file), str(file))
        merged.put((), read_environment(AgentFile, VARIABLES, environ), ENVIRONMENT)
        name_variables(merged, VARIABLES, environ)
    for name, value in flags.items():
        if value is not None:
            merged.put(name.split("."), value, f"flag for {name}")
    return validated(AgentFile, merged)
