"""The alert rules that ship: each fires on its problem, and all are about metrics that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import yaml

from agent.runtime import agent_metrics
from deploy.cli.main import COMMANDS
from planner.runtime.telemetry import planner_metrics
from planner.runtime.telemetry.bus_watch import ProblemCode
from tests.integration.prometheus_process import prometheus_binary

AGENT_METRICS = {one.name for one in agent_metrics.METRICS} | {one.name for one in agent_metrics.CONNECTOR_METRICS}
FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "observability"


def test_every_rule_fires_on_its_problem_and_on_nothing_else() -> None:
    prometheus_binary()  # promtool is in the same package
    tool = shutil.which("promtool")
    assert tool is not None
    words = [tool, "test", "rules", "alerts.test.yaml"]
    done = subprocess.run(words, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_about_metrics_that_exist_and_every_problem_has_one() -> None:
    rules = [
        rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
    ]
    known = {metric.name for metric in planner_metrics.OURS} | AGENT_METRICS
    named = {name for rule in rules for name in re.findall(r"wattscale_\w+", rule["expr"])}
    assert named <= known
    tested = (FOLDER / "alerts.test.yaml").read_text()
    assert all(rule["alert"] in tested for rule in rules)
    problems = {code for rule in rules for code in re.findall(r'problem="(\w+)"', rule["expr"])}
    # Not leading has a gauge of its own, which is 0 or 1 at every planner.
    assert problems == {code.value for code in ProblemCode} - {ProblemCode.NOT_LEADING.value}


def test_every_rule_has_a_runbook_with_commands_that_exist() -> None:
    rules = [
        rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
    ]
    page = (FOLDER / "RUNBOOKS.md").read_text()
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == [rule["alert"] for rule in rules]
    assert all(rule["annotations"]["runbook"] == f"RUNBOOKS.md#{rule['alert'].lower()}" for rule in rules)
    words = {command for commands in COMMANDS.values() for command in commands}
    assert set(re.findall(r"`wattscale (\w+)", page)) <= words
