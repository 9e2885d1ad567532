"""`wattscale planner run | check | decide`: run a planner, check its settings, or decide offline."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from deploy.cli.errors import CliError, UsageError
from deploy.cli.numbers import MOST_GPUS, number
from deploy.event_loop import run as on_event_loop
from deploy.installed_files import rival_claims

if TYPE_CHECKING:
    from bus_schemas import v1
    from bus_schemas.jetstream.settings import BusSettings
    from deploy.compose.connectors.beside_planner import SideConnector
    from deploy.compose.settings_loader import Loaded
    from planner.domain.config import DeploymentConfig, PlannerConfig
    from planner.runtime.config.settings import Settings

log = logging.getLogger("planner.settings")

COUNT_WITHIN_S = 3.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    parser = subparsers.add_parser("planner", help="run the planner, check its settings, or decide offline")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run a planner until SIGINT or SIGTERM")
    add_settings(run)
    run.set_defaults(run=_run)

    check = commands.add_parser(
        "check", help="check settings and profiles; one line per problem, exit 2 if there is any"
    )
    check.add_argument(
        "--live", action="store_true", help="compare with what the bus shows now: which GPUs belong to which pool"
    )
    add_settings(check)
    check.set_defaults(run=_check)

    decide = commands.add_parser(
        "decide",
        help="decide offline: intervals on standard input, decisions on standard output",
        description="Reads one JSON object a line (num_req, isl, osl, ttft_ms, itl_ms, kv_hit_rate; a missing key is a "
        "missing reading) and prints the decision after each, as if every decision were carried out at once.",
    )
    add_settings(decide)
    decide.add_argument("--profile", type=Path, metavar="DIR", help="the engine's profile; overrides the settings")
    decide.add_argument(
        "--interval",
        type=number(0, 1e6, above=True),
        metavar="S",
        help="seconds of one interval; overrides the settings",
    )
    decide.add_argument(
        "--deployment", metavar="NAME", help="the deployment to decide for, if the settings name several"
    )
    decide.add_argument(
        "--site-budget", action="store_true", help="apply the site's budget; default: enough watts for all GPUs"
    )
    decide.set_defaults(run=_decide)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Options that give settings: a file, any setting by path, and Dynamo's planner flags by name."""
    from planner.runtime.config.dynamo_flags import FLAGS
    from planner.runtime.config.guide_defaults import GUIDE_DEFAULTS

    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="settings in YAML")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="one setting, such as interval_s=10",
    )
    parser.add_argument(
        "--guide-defaults",
        choices=sorted(GUIDE_DEFAULTS),
        help="start from the defaults of one of Dynamo's guides instead of ours",
    )
    group = parser.add_argument_group("Dynamo's planner flags (planner/DYNAMO_FLAGS.md maps each to a setting)")
    for flag in FLAGS:
        plain = [name.replace("_", "-") for name in (flag.name, *flag.aliases)]
        names = [*(f"--{name}" for name in plain), *(f"--Planner.{name}" for name in plain)]
        options: dict[str, Any] = {"nargs": "?", "const": True} if flag.switch else {}
        group.add_argument(
            *names, dest=f"dynamo_{flag.name}", default=None, metavar="X", help=argparse.SUPPRESS, **options
        )


def loaded(args: argparse.Namespace, *overrides: str) -> Loaded[Settings]:
    """The settings that the arguments give. Raises UnusableSettingsError."""
    from deploy.compose.planner_settings import load
    from deploy.compose.settings_layers import SettingsError

    flags = {
        name.removeprefix("dynamo_"): value
        for name, value in vars(args).items()
        if name.startswith("dynamo_") and value is not None
    }
    try:
        return load(args.config, flags, [*args.overrides, *overrides], guide=args.guide_defaults)
    except SettingsError as error:
        raise UnusableSettingsError(error.problems) from error


class UnusableSettingsError(UsageError):
    """Settings that cannot be used: one line per problem."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__(*problems)


def _composed(found: Loaded[Settings], *, offline: bool = False) -> PlannerConfig:
    from deploy.compose.core_config import planner_config
    from deploy.compose.settings_layers import SettingsError

    try:
        return planner_config(found.settings, offline=offline)
    except SettingsError as error:
        raise UnusableSettingsError(error.problems) from error


def _connectors(found: Loaded[Settings]) -> tuple[SideConnector, ...]:
    from deploy.compose.connectors.beside_planner import side_connectors
    from deploy.compose.settings_layers import SettingsError

    try:
        return side_connectors(found.settings, os.environ)
    except SettingsError as error:
        raise UnusableSettingsError(error.problems) from error


def _run(args: argparse.Namespace) -> int:
    from deploy.compose.planner_service import run_planner
    from planner.runtime.telemetry.logs import set_up

    found = loaded(args)
    set_up(found.settings.log.level, found.settings.log.format)
    for note in (*rival_claims(), *found.notes):
        log.warning(note)
    config = _composed(found)
    beside = _connectors(found)
    for warning in warnings(found.settings, config):
        logging.getLogger("wattscale.planner").warning(warning)
    try:
        on_event_loop(run_planner(found.settings, config, beside))
    except ImportError as error:
        raise UsageError(f"{error}; pip install 'wattscale[otlp]', or leave otlp.endpoint empty") from error
    except OSError as error:
        pages = "health.port" if found.settings.dashboard.port is None else "health.port or dashboard.port"
        raise CliError(f"{error}; set {pages}, or its host, to another address") from error
    return 0


def warnings(settings: Settings, config: PlannerConfig) -> list[str]:
    """What a planner with this configuration does not do, for the log at its start."""
    found = []
    if not config.sites:
        why = "no site has a budget_watts" if settings.power_aware else "power_aware is off"
        found.append(f"no watts are planned and no cap is sent: {why}")
    if config.deployments and all(block.mode == "advisory" for block in config.deployments.values()):
        found.append(
            "all deployments are advisory, and no decision is sent: where no other planner leads, agents lower their "
            "GPUs to the hardware's minimum, unless they have hold_without_decision"
        )
    found += [
        f"{name} is advisory: its connector, {block.connector}, is not started"
        for name, block in settings.deployments.items()
        if block.mode == "advisory" and block.connector != "none"
    ]
    return found


def _check(args: argparse.Namespace) -> int:
    from bus_schemas.visible_text import visible
    from deploy.compose.predictors import predictor_notes
    from deploy.dashboard.planner_steering import steer_tokens
    from deploy.views.live_pools import lines

    found = loaded(args)
    config, beside = _composed(found), _connectors(found)
    if found.settings.dashboard.steering is not None:
        steer_tokens(found.settings.dashboard.steering)
    for note in (*found.notes, *predictor_notes(found.settings)):
        print(f"note: {note}")
    for name, deployment in config.deployments.items():
        pools = ", ".join(f"{pool} {p.min_replicas} to {p.max_replicas}" for pool, p in deployment.all_pools.items())
        site = config.sites.get(deployment.site)
        watts = f"site {site.site} {site.budget_mw / 1000:g} W" if site is not None else "no watts are planned"
        print(
            f"ok: {name}: TTFT {deployment.ttft_ms:g} ms, ITL {deployment.itl_ms:g} ms, {deployment.sizing}, "
            f"{deployment.mode}; {pools}; {watts}; "
            f"profile {deployment.profile.name}"
        )
        for line in deployment.profile.dropped:
            print(f"note: {name}: profile point dropped: {line}")
    for connector in beside:
        print(f"ok: {connector.name}: {connector.where}")
    for line in _coverage(config):
        print(line)
    unset = [at for at, block in config.sites.items() if block.expected_gpus is None]
    telemetry = asyncio.run(_telemetry(found.settings.bus)) if unset or args.live else None
    if args.live:
        if telemetry is None:
            raise CliError(f"no bus answered within {COUNT_WITHIN_S:g} s; set bus.servers, or leave out --live")
        for line in lines(telemetry, config):
            print(visible(line))
    if unset:
        gpus = None if telemetry is None else sum(len(each.gpus) for each in telemetry)
        counted = "no bus answered to count them" if gpus is None else f"{gpus} are seen on the bus now"
        for each in unset:
            print(f"note: site {each}: set expected_gpus, or a GPU that never reported is charged nothing; {counted}")
    return 0


def _coverage(config: PlannerConfig) -> list[str]:
    """For every site whose budget covers workers only, what that leaves out."""
    from planner.domain.config import Covers

    return [
        f"note: site {at}: covers: workers: the budget bounds the GPUs that its deployments hold and those reserved "
        "for their replicas; all other GPUs are outside the promise"
        for at, block in config.sites.items()
        if block.covers is Covers.WORKERS
    ]


async def _telemetry(settings: BusSettings) -> list[v1.NodeTelemetry] | None:
    """The newest telemetry of every node on the bus; None where the bus does not answer in time."""
    from bus_schemas import v1
    from bus_schemas.errors import BusError
    from bus_schemas.jetstream.connect import connect
    from bus_schemas.jetstream.reader import last_per_subject

    try:
        async with asyncio.timeout(COUNT_WITHIN_S):
            bus = await connect(settings)
            try:
                stored = await last_per_subject(bus, bus.subjects.all_of("telemetry", "node"))
            finally:
                await bus.close()
    except (BusError, TimeoutError, OSError):
        return None
    return [each.message for each in stored if isinstance(each.message, v1.NodeTelemetry)]


def _decide(args: argparse.Namespace) -> int:
    from planner.runtime.offline import OfflinePlanner, unlimited

    # Offline, an interval takes its own length of load time: no accelerated clock is involved.
    overrides = ["load_time_scale=1"] + ([] if args.interval is None else [f"interval_s={args.interval}"])
    if args.profile is not None:
        overrides.append(f"deployments.*.profile={args.profile}")
    if not args.site_budget:
        overrides.append("sites.@.budget_watts=1")
    found = loaded(args, *overrides)
    config = _composed(found, offline=True)
    name = _chosen(args.deployment, config.deployments)
    _check_size(config.deployments[name])
    if not args.site_budget and found.settings.power_aware:
        config = unlimited(config, name)
    return _filter(OfflinePlanner(config, name).decide, sys.stdin)


def _check_size(deployment: DeploymentConfig) -> None:
    gpus = sum(pool.max_replicas * pool.gpus_per_replica for pool in deployment.pools.values())
    if min(gpus, deployment.max_gpus or gpus) > MOST_GPUS:
        raise UsageError(f"{gpus} GPUs at most: offline {MOST_GPUS} can be planned; set max_replicas or max_gpus lower")


def _chosen(asked: str | None, deployments: Mapping[Any, Any]) -> Any:
    if asked is None and len(deployments) == 1:
        return next(iter(deployments))
    if asked in deployments:
        return asked
    known = ", ".join(deployments)
    raise UsageError(
        f"--deployment: {'name one of' if asked is None else f'no deployment {asked!r}; there are'} {known}"
    )


def _filter(decide: Callable[[Mapping[str, object]], dict[str, object]], lines: TextIO) -> int:
    from planner.runtime.offline import BadIntervalError

    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            interval = json.loads(line)
            if not isinstance(interval, dict):
                raise BadIntervalError("it must be a JSON object")
            print(json.dumps(decide(interval)), flush=True)
        except ValueError as error:
            raise UsageError(f"standard input, line {place}: {error}") from error
    return 0
