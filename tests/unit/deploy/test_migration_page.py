"""``deploy/MIGRATION.md``: its checks pass, its other commands exist, its settings are ones that a planner takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from agent.core.scaling.kubernetes import rival_scalers
from deploy.cli.main import build_parser
from tests.command_line import run
from tests.shared_data import ROOT
from tests.unit.planner.adapters.test_profiles import write as write_profile

PAGE = ROOT / "deploy" / "MIGRATION.md"
TEXT = PAGE.read_text(encoding="utf-8")
TYPED = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
COMMANDS = sorted({*TYPED, *re.findall(r"`(wattscale [^`]+)`", TEXT)})
OFFLINE = sorted({line.replace(" run ", " check ") for line in TYPED if re.match(r"wattscale (planner|config) ", line)})
(SETTINGS,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists(command: str) -> None:
    words = shlex.split(command)[1:]
    if any(word.startswith("-") for word in words):
        build_parser().parse_args(words)
        return
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([*words, "--help"])
    assert ended.value.code == 0


@pytest.mark.parametrize("command", OFFLINE)
def test_flags_of_a_dynamo_planner_are_ones_that_ours_starts_with(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_profile(tmp_path)
    around = ["--set", "sites.default.expected_gpus=8"] if "power" in command else []
    done = run(*shlex.split(command.replace("DIR", "."))[1:], *around)
    assert (done.code, done.err) == (0, ""), done


def test_settings_for_those_who_come_from_an_autoscaler(tmp_path: Path) -> None:
    path = tmp_path / "planner.yaml"
    path.write_text(SETTINGS)
    done = run("planner", "check", "-c", str(path))
    assert (done.code, done.err) == (0, ""), done
    assert "ok: prod-chat" in done.out
    path.write_text(SETTINGS.replace("max_replicas", "maxReplicas"))
    assert run("planner", "check", "-c", str(path)).code == 2


def test_a_paused_scaled_object_is_named_as_the_code_has_it() -> None:
    assert f'`{rival_scalers._KEDA_PAUSED}: "true"`' in TEXT
