"""``deploy/GUIDES.md``: a row for every row of the audit, and no command or flag that there is not."""

from __future__ import annotations

import os
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from deploy.cli.main import build_parser, main
from tests.command_line import run
from tests.contract.kubernetes.test_detected_model import account_file
from tests.shared_data import ROOT
from tests.unit.planner.adapters.test_profiles import write as write_profile

PAGE = ROOT / "deploy" / "GUIDES.md"
ROW = re.compile(r"^\| ((?:\d{3}|C)\.\d+) \| .* \| (works|differs|not yet)\b.*\|$", re.MULTILINE)


def answers() -> list[str]:
    """The last cell of every row: what a user of Wattscale does."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    return [line.rstrip("| ").rpartition(" | ")[2] for line in rows]


def spans(start: str) -> list[str]:
    found = {span for cell in answers() for span in re.findall(r"`([^`]*)`", cell) if span.startswith(start)}
    return sorted(found)


def audit() -> Path:
    shared = Path(os.environ.get("WATTSCALE_SHARED", ROOT.parent / "shared"))
    return shared / "design" / "guide-audit.md"


def test_every_row_of_the_audit_has_an_answer() -> None:
    if not audit().exists():
        pytest.skip("no design pages beside this checkout")
    wanted = re.findall(r"^\| ((?:\d{3}|C)\.\d+) \|", audit().read_text(), re.MULTILINE)
    assert [name for name, _ in ROW.findall(PAGE.read_text())] == wanted


@pytest.mark.parametrize("command", spans("wattscale "))
def test_every_command_of_the_page_is_one(command: str) -> None:
    words = shlex.split(command)[1:]
    if not any(word.startswith("-") for word in words):
        words.append("--help")
    if words[-1] != "--help":
        build_parser().parse_args(words)
        return
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(words)
    assert ended.value.code == 0


@pytest.mark.parametrize("flags", spans("--"))
def test_every_flag_of_the_page_makes_settings_that_a_planner_starts_with(
    flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(account_file(tmp_path, "http://127.0.0.1:9")))
    monkeypatch.setenv("DYN_PARENT_DGD_K8S_NAME", "vllm-disagg")
    write_profile(tmp_path)
    worker = {"command": ["engine", "--port", "{port}"], "gpus_per_replica": 0}
    pools = {"prefill": worker, "decode": worker}
    Path("workers.yaml").write_text(yaml.safe_dump({"state_folder": "state", "pools": pools}))
    Path("trace.jsonl").write_text('{"timestamp": 0, "input_length": 10, "output_length": 5}\n')
    values = {"DIR": ".", "FILE": "trace.jsonl", "NAME": "kalman"}
    words = [values.get(word, word) for word in shlex.split(flags)]
    # What a row leaves to its guide's defaults: where metrics and the profile are.
    around = ["--set", "deployments.*.profile=."]
    if "--guide-defaults" not in words:
        around += ["--guide-defaults", "power", "--set", "sites.default.expected_gpus=8"]
    done = run("planner", "check", *around, *words)
    missing = [name for name in ("pmdarima", "prophet") if find_spec(name) is None]
    if done.code == 2 and any(extra in " ".join(words) for extra in ("arima", "prophet")) and missing:
        assert "pip install 'wattscale[forecast-" in done.err
        return
    assert (done.code, done.err) == (0, ""), done
    assert done.out.startswith(("ok: ", "note: "))


def test_what_is_not_there_yet_names_the_part_that_it_is_of() -> None:
    cells = [cell for cell in answers() if cell.startswith("not yet")]
    assert cells
    assert not [cell for cell in cells if not re.match(r"not yet \((hands|cluster|profiler)\): ", cell)]


def test_a_command_that_is_none_is_found() -> None:
    assert main(["planner", "fly", "--help"]) == 2
