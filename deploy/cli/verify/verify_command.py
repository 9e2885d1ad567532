"""`wattscale verify`: checks a whole installation, from the bus to the hardware, and says what to do about each fault.

Gathers facts, judges them, prints one line for each check. Changes nothing anywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deploy.cli.bus_address import ENVIRONMENT, add_bus_options
from deploy.cli.bus_connection import reached
from deploy.cli.errors import BusProblemError, CliError, UsageError
from deploy.cli.numbers import number, whole
from deploy.cli.output_file import write_output

if TYPE_CHECKING:
    from pydantic import BaseModel

    from agent.connectors.kubernetes.kubernetes_file import KubernetesFile
    from agent.runtime.agent_file import AgentFile
    from deploy.cli.verify.facts import BusFacts, Facts, SettingsFacts, Unknown
    from deploy.cli.verify.verdicts import CheckLine
    from deploy.compose.settings_loader import Loaded
    from planner.runtime.config.settings import Settings

M = TypeVar("M", bound="BaseModel")

LONGEST_WAIT_S = 3600.0
MOST_REPLICAS = 5
PAUSE_S = 0.5
DESCRIPTION = (
    "Checks bus, planners, agents, metrics, decisions and caps of a running site, and prints one line for each check: "
    "pass, warn, fail or skipped, with a remedy. Reads only. Exit code 0: nothing failed; 1: a check failed (--strict: "
    "or warns); 2: bad input; 3: the bus cannot be reached."
)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    verify = subparsers.add_parser(
        "verify", help="check a whole installation, from the bus to the hardware", description=DESCRIPTION
    )
    add_bus_options(verify)
    parts = verify.add_argument_group("settings of the parts, which add checks")
    parts.add_argument("-c", "--config", type=Path, metavar="FILE", help="the planner's settings: metrics, profile")
    parts.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="PATH=VALUE", help="one setting of the planner"
    )
    parts.add_argument("--agent-settings", type=Path, metavar="FILE", help="of this node's agent: its GPUs and rights")
    parts.add_argument("--connector-settings", type=Path, metavar="FILE", help="of a Kubernetes connector: its rights")
    parts.add_argument("--kubeconfig", type=Path, metavar="FILE", help="default: the pod's account, else KUBECONFIG")
    verify.add_argument(
        "--replicas", type=whole(1, MOST_REPLICAS), metavar="N", help="copies that each stream should have"
    )
    verify.add_argument(
        "--wait",
        type=number(0, LONGEST_WAIT_S),
        default=5.0,
        metavar="S",
        help="how long a check that fails is repeated (default: 5): decisions may be on their way",
    )
    verify.add_argument("--strict", action="store_true", help="exit 1 also for a warning")
    verify.add_argument("--json", action="store_true", help="print JSON")
    verify.add_argument("--junit", type=Path, metavar="FILE", help="write a JUnit report, too")
    verify.set_defaults(run=lambda args: asyncio.run(_verify(args)))


async def _verify(args: argparse.Namespace) -> int:
    from deploy.cli.verify.facts import Unknown
    from deploy.cli.verify.verdicts import Verdict
    from deploy.cli.verify.verify_report import as_json, as_junit, as_text

    parts = _Parts(args)
    until_s = time.monotonic() + args.wait
    while True:
        facts = await _gathered(args, parts)
        lines = judged(facts)
        if time.monotonic() >= until_s or not any(line.verdict is Verdict.FAIL for line in lines):
            break
        await asyncio.sleep(PAUSE_S)
    if args.junit is not None:
        write_output("--junit", args.junit, as_junit(lines, strict=args.strict))
    print(json.dumps(as_json(lines), indent=2) if args.json else as_text(lines))
    if isinstance(facts.bus, Unknown):
        raise BusProblemError(facts.bus.why)
    bad = (Verdict.FAIL, Verdict.WARN) if args.strict else (Verdict.FAIL,)
    return CliError.exit_code if any(line.verdict in bad for line in lines) else 0


class _Parts:
    """The settings that were given. Raises UsageError for files that cannot be read."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.planner, self.problems = _planner_settings(args)
        self.agent: AgentFile | None = None
        self.connector: KubernetesFile | None = None
        if args.agent_settings is not None:
            from deploy.compose.agent_settings import load as load_agent

            self.agent = _loaded(lambda: load_agent(args.agent_settings, os.environ, {}))
        if args.connector_settings is not None:
            from agent.connectors.kubernetes.kubernetes_file import KubernetesFile
            from deploy.compose.connectors.connector_settings import load as load_connector

            self.connector = _loaded(lambda: load_connector(args.connector_settings, os.environ, {}, KubernetesFile))
        _default_bus(args, self.planner)


def _loaded(load: Any) -> Any:
    from deploy.compose.settings_layers import SettingsError

    try:
        return load().settings
    except SettingsError as error:
        raise UsageError(*error.problems) from error


def _planner_settings(args: argparse.Namespace) -> tuple[Loaded[Settings] | None, tuple[str, ...]]:
    """The planner's settings, None where none are given, and why they cannot be used."""
    from deploy.compose.planner_settings import load
    from deploy.compose.settings_layers import SettingsError

    if args.config is None and not args.overrides:
        return None, ()
    if args.config is not None and not args.config.is_file():
        raise UsageError(f"--config: no file {args.config}")
    try:
        return load(args.config, {}, args.overrides), ()
    except SettingsError as error:
        return None, error.problems


def _default_bus(args: argparse.Namespace, planner: Loaded[Settings] | None) -> None:
    """Without an address of the bus, it is that of the planner's settings."""
    named = any(os.environ.get(ENVIRONMENT + name) for name in ("URL", "CONTEXT"))
    if named or args.nats_url or args.context or planner is None:
        return
    if "bus" not in planner.settings.model_fields_set:
        return
    bus = planner.settings.bus
    if "servers" in bus.model_fields_set:
        args.nats_url = ",".join(bus.servers)
        args.prefix = args.prefix or bus.prefix


async def _gathered(args: argparse.Namespace, parts: _Parts) -> Facts:
    from deploy.cli.verify.facts import Facts, SettingsFacts
    from deploy.cli.verify.gather_cluster import cluster_facts, hardware_facts, rights_facts
    from deploy.cli.verify.gather_metrics import metric_facts, settings_facts, trial_decisions
    from deploy.cli.versions import program_versions

    facts = Facts(
        bus=await _bus(args),
        cluster=await cluster_facts(args.kubeconfig),
        rights=await rights_facts(parts.connector, parts.agent, args.kubeconfig),
        hardware=await hardware_facts(parts.agent),
        versions=program_versions(),
    )
    if parts.problems:
        return _with(facts, settings=SettingsFacts(parts.problems))
    if parts.planner is None:
        return facts
    of_planner, settings = await settings_facts(parts.planner)
    tested = trial_decisions(of_planner.config, facts.bus) if of_planner.config is not None else _unusable(of_planner)
    return _with(facts, settings=of_planner, metrics=await metric_facts(settings), tested=tested)


def _with(facts: Facts, **changes: Any) -> Facts:
    from dataclasses import replace

    return replace(facts, **changes)


def _unusable(_: SettingsFacts) -> Unknown:
    from deploy.cli.verify.facts import Unknown

    return Unknown("the settings cannot be used")


async def _bus(args: argparse.Namespace) -> BusFacts | Unknown:
    from bus_schemas.errors import ServerTooOldError
    from deploy.cli.verify.facts import OldServer, Unknown
    from deploy.cli.verify.gather_bus import bus_facts

    try:
        async with reached(args) as bus:
            return await bus_facts(bus, args.replicas)
    except BusProblemError as error:
        why, old = "; ".join(error.lines), error.__cause__
        return OldServer(why, old.cause, old.remedy) if isinstance(old, ServerTooOldError) else Unknown(why)


def judged(facts: Facts) -> tuple[CheckLine, ...]:
    """All lines, in the order of their groups."""
    from deploy.cli.verify import (
        judge_automation,
        judge_function,
        judge_hardware,
        judge_infrastructure,
        judge_prometheus,
    )

    lines = (*judge_infrastructure.judge(facts), *judge_automation.judge(facts), *judge_prometheus.judge(facts))
    return (*lines, *judge_function.judge(facts, lines), *judge_hardware.judge(facts))
