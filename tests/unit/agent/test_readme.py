"""The settings in the README are the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

import agent
from agent.runtime.agent_file import AgentFile
from deploy.compose.agent_settings import load


def names(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields)


def test_the_example_is_valid_complete_and_shows_the_defaults(tmp_path: Path) -> None:
    text = (Path(agent.__file__).parent / "README.md").read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    file = tmp_path / "agent.yaml"
    file.write_text(example)
    shown: dict[str, Any] = yaml.safe_load(example)
    assert set(shown) == names(AgentFile) - {"simulated"}
    loaded = load(file, {}, {}).settings
    plain = AgentFile(node="gpu-node-7")
    given = {"nats", "annotations", "state_file", "lock_file"}
    for name in set(shown) - given:
        assert getattr(loaded, name) == getattr(plain, name), name
    simulated = AgentFile.model_fields["simulated"].annotation
    assert isinstance(simulated, type)
    assert issubclass(simulated, BaseModel)
    for name in names(simulated):
        assert name in text
