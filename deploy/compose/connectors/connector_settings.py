"""A connector's settings: a YAML file, then the environment, then flags, each stronger than the one before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from deploy.compose.settings_layers import Merged
from deploy.compose.settings_loader import ENVIRONMENT, Loaded, Variables, name_variables, validated
from deploy.compose.settings_sources import read_environment, read_file

T = TypeVar("T", bound=BaseModel)
VARIABLES = Variables("WATTSCALE_CONNECTOR_", strict=True)
"""``WATTSCALE_CONNECTOR_HTTP__PORT=9102`` sets ``http.port``."""


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any], model: type[T]) -> Loaded[T]:
    """Settings in force. ``flags``: by dotted name, None where not given. Raises SettingsError."""
    merged = Merged()
    if file is not None:
        merged.put((), read_file(model, file), str(file))
    merged.put((), read_environment(model, VARIABLES, environ), ENVIRONMENT)
    name_variables(merged, VARIABLES, environ)
    for name, value in flags.items():
        if value is not None:
            merged.put(name.split("."), value, f"flag for {name}")
    return validated(model, merged)
