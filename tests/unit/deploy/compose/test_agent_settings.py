"""Settings of the agent: file, environment, flags; what is unknown is refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.settings import OnExit
from bus_schemas.jetstream.settings import BusSettings
from deploy.compose.agent_service import bus_of_agent
from deploy.compose.agent_settings import load
from deploy.compose.settings_layers import SettingsError
from deploy.nats.roles import inbox_prefix

ROOT = Path(__file__).resolve().parents[4]


def test_flags_are_stronger_than_the_environment_which_is_stronger_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("node: a\nhttp: {port: 1, host: 127.0.0.1}\non_exit: restore\ntelemetry_interval_s: 2\n")
    environment = {"WATTSCALE_AGENT_HTTP__PORT": "2", "WATTSCALE_AGENT_NODE": "b", "OTHER": "x"}
    settings = load(file, environment, {"node": "c", "http.port": None, "nats.servers": ["nats://h:4222"]}).settings
    assert (settings.node, settings.http.port, settings.http.host) == ("c", 2, "127.0.0.1")
    assert settings.on_exit is OnExit.RESTORE
    assert settings.nats is not None
    assert settings.nats.servers == ("nats://h:4222",)
    assert settings.for_service().telemetry_interval_s == 2


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"node": "n", "telemetry_intervall_s": 1},
            "telemetry_intervall_s: no such setting; did you mean telemetry_interval_s?",
        ),
        ({"node": "n", "http.prt": 1}, "http.prt: no such setting; did you mean http.port?"),
        ({"node": "n", "nats.serverz": ["x"]}, "nats.serverz: no such setting; did you mean nats.servers?"),
        ({"node": "n", "qqqqqq": 1}, "qqqqqq: no such setting; known are"),
        ({}, "node: must be set"),
        ({"node": "n", "driver": "amd"}, "driver: Input should be 'nvml' or 'simulated'"),
        ({"node": "n", "ready_within_s": 5}, "ready_within_s must be above reconcile_interval_s"),
        ({"node": "n", "reconcile_interval_s": 60}, "reconcile_interval_s"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, {}, values)
    assert line in str(caught.value)


@pytest.mark.parametrize("word", ["on", "off", "auto"])
def test_kubernetes_is_switched_by_an_unquoted_word_of_a_file(tmp_path: Path, word: str) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(f"node: a\nkubernetes: {{mode: {word}}}\n")
    assert load(file, {}, {}).settings.kubernetes.mode == word


@pytest.mark.parametrize(("text", "line"), [("- a", "holds a list"), ("{", "not YAML")])
def test_a_file_that_is_no_settings_file_is_named(tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=line):
        load(file, {}, {})
    with pytest.raises(SettingsError, match="No such file"):
        load(tmp_path / "absent.yaml", {}, {})


@pytest.mark.parametrize(("text", "port"), [("0", 0), ("none", None), ("null", None), ("9101", 9101)])
def test_a_port_of_0_is_the_systems_choice_and_none_is_off(text: str, port: int | None) -> None:
    assert load(None, {"WATTSCALE_AGENT_HTTP__PORT": text}, {"node": "n"}).settings.http.port == port
    if text != "null":
        assert load(None, {}, {"node": "n", "http.port": text}).settings.http.port == port


def test_a_port_that_is_no_port_is_named() -> None:
    for wrong in ("some", "65536"):
        with pytest.raises(SettingsError, match=r"http\.port"):
            load(None, {}, {"node": "n", "http.port": wrong})


AS_THE_AGENT_DOES = """
import json, sys
import json
import subprocess
import sys
from pathlib import Path
from deploy.compose.agent_settings import load
from deploy.compose.settings_layers import SettingsError
try:
    found = load(Path(sys.argv[1]), json.loads(sys.argv[2]), {"http.host": "::1"}, in_child=True)
    print(json.dumps(found.rows()))
except SettingsError as error:
    print(json.dumps(error.problems))
print(json.dumps([name for name in ("yaml", "pydantic_settings") if name in sys.modules]))
"""


@pytest.mark.parametrize(
    ("text", "environ"),
    [
        ("node: n\nsimulated: {faults: {0: {read: unknown}}}\n", {"WATTSCALE_AGENT_HTTP__PORT": "null"}),
        ("node: n\nhttp: 5\n", {}),
        ("node: n\nhttp: {prt: 5}\n", {}),
        ("- a\n", {}),
        ("node: n\n", {"WATTSCALE_AGENT_HTP": "1", "WATTSCALE_AGENT_NOD": "1"}),
    ],
)
def test_a_child_reads_what_this_process_would_and_leaves_no_library_behind(
    tmp_path: Path, text: str, environ: dict[str, str]
) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    program = [sys.executable, "-c", AS_THE_AGENT_DOES, str(file), json.dumps(environ)]
    answer = subprocess.run(program, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    try:
        here: Any = [list(row) for row in load(file, environ, {"http.host": "::1"}).rows()]
    except SettingsError as error:
        here = list(error.problems)
    assert json.loads(answer[0]) == here
    assert json.loads(answer[1]) == []


def test_each_value_has_its_origin_and_each_mistake_its_line(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text("node: n\nhttp: {port: 1}\n")
    environ = {"WATTSCALE_AGENT_GRACE_S": "7", "WATTSCALE_AGENT_NATS": '{"servers": ["nats://h:4222"]}'}
    origins = {path: origin for path, _, origin in load(file, environ, {"http.host": "::1"}).rows()}
    assert origins["http.port"] == str(file)
    assert origins["grace_s"] == "environment WATTSCALE_AGENT_GRACE_S"
    assert origins["nats.servers"] == "environment WATTSCALE_AGENT_NATS"
    assert origins["http.host"] == "flag for http.host"
    assert origins["on_exit"] == "default"
    with pytest.raises(SettingsError) as caught:
        load(file, {}, {"driver": "amd", "grace_s": -1, "http.prt": 2})
    assert len(caught.value.problems) == 3


def test_an_inbox_prefix_with_the_nodes_name_is_that_of_the_permissions() -> None:
    bus = bus_of_agent(BusSettings(inbox_prefix="_INBOX_agent_gpu-1.rack.site"), "gpu-1.rack.site")
    assert bus.inbox_prefix == inbox_prefix("agent", "gpu-1.rack.site")
    assert bus_of_agent(BusSettings(inbox_prefix="_INBOX.mine"), "gpu-1.rack").inbox_prefix == "_INBOX.mine"
