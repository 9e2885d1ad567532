"""`wattscale connector check`: judges an actuator of any make by its acknowledgements."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import shlex
import signal
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from deploy.cli.bus_address import add_bus_options
from deploy.cli.bus_connection import reached
from deploy.cli.errors import UsageError
from deploy.cli.numbers import LONGEST_S, number

if TYPE_CHECKING:
    from deploy.connector_check.check_run import CheckResult

ROLES = ("prefill", "decode", "aggregated")
MOST = 1000
POOLS = (("prefill", ("prefill", 1, 2)), ("decode", ("decode", 1, 2)))


def add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the sub-command."""
    check = commands.add_parser(
        "check",
        help="judge any actuator: does it keep the contract?",
        description="Acts as the planner of one deployment, where none leads: sends decisions, the same ones again, "
        "newer ones before they are done, outdated and impossible ones and bytes that are no message, and judges all "
        "acknowledgements. Needs a planner's rights. The actuator really scales between the counts of --pool. "
        "Exit code 1: a rule was broken.",
    )
    check.add_argument("deployment", metavar="DEPLOYMENT", help="the deployment that the actuator scales")
    check.add_argument(
        "--pool",
        action="append",
        type=_pool,
        metavar="NAME=LOW:HIGH",
        help="a pool and the counts to scale between, as decode=1:2, or NAME/ROLE=LOW:HIGH where the name is no role; "
        "repeat for several (default: prefill=1:2 and decode=1:2)",
    )
    check.add_argument(
        "--timeout-s",
        type=number(0, LONGEST_S, above=True),
        default=120.0,
        metavar="S",
        help="how long one decision may take (default: 120)",
    )
    check.add_argument(
        "--restart",
        metavar="COMMAND",
        help="restarts the actuator; run while a decision is under way, and ended after --timeout-s",
    )
    check.add_argument("--json", action="store_true", help="print JSON")
    add_bus_options(check)
    check.set_defaults(run=_interruptible)


def _interruptible(args: argparse.Namespace) -> int:
    """Run the check. SIGTERM ends it as Ctrl-C does: with the restart command, and the lease released."""

    async def checked() -> int:
        task = asyncio.current_task()
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await _check(args)

    try:
        return asyncio.run(checked())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _pool(text: str) -> tuple[str, tuple[str, int, int]]:
    named, _, counts = text.partition("=")
    name, _, role = named.partition("/")
    low, _, high = counts.partition(":")
    role = role or name
    if not name or role not in ROLES or not (low.isdecimal() and high.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=LOW:HIGH with a name that is a role, or NAME/ROLE=")
    if not int(low) < int(high) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r}: LOW must be below HIGH, and HIGH at most {MOST}")
    return name, (role, int(low), int(high))


async def _check(args: argparse.Namespace) -> int:
    from bus_schemas.subjects import BadNameError, scaling_consumer
    from deploy.connector_check.check_run import CheckSettings, ConnectorCheck
    from deploy.connector_check.planner_lease import CannotCheckError, alone

    try:
        scaling_consumer(args.deployment)
    except BadNameError as error:
        raise UsageError(str(error)) from error
    settings = CheckSettings(args.deployment, dict(args.pool or POOLS), args.timeout_s)
    restart = partial(_run, _command(args.restart)) if args.restart else None
    async with reached(args) as bus:
        try:
            async with alone(bus):
                results = await ConnectorCheck(bus, settings, restart).run()
        except CannotCheckError as error:
            raise UsageError(str(error)) from error
    print(_json(results) if args.json else _table(results))
    return 1 if any(one.breaches for one in results) else 0


def _command(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--restart: {error}") from error
    if not words:
        raise UsageError("--restart: names no command")
    return words


async def _run(command: Sequence[str]) -> None:
    """Run a command to its end; end it and what it started when cancelled. Raises RestartFailedError."""
    from deploy.connector_check.check_run import RestartFailedError

    try:
        process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
    except OSError as error:
        raise RestartFailedError(f"{command[0]}: {error.strerror}") from error
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if code != 0:
        raise RestartFailedError(f"{shlex.join(command)} ended with exit code {code}")


def _table(results: Sequence[CheckResult]) -> str:
    from bus_schemas.visible_text import visible

    lines = []
    for one in results:
        verdict = "FAIL" if one.breaches else "skip" if one.skipped else "ok"
        lines.append(f"{verdict:>4}  {one.name}{f' ({one.skipped})' if one.skipped else ''}")
        lines += [f"      - {visible(breach)}" for breach in one.breaches[:5]]
        if len(one.breaches) > 5:
            lines.append(f"      - and {len(one.breaches) - 5} more")
    skipped = sum(bool(one.skipped) for one in results)
    broken = sum(bool(one.breaches) for one in results)
    tried = len(results) - skipped
    counts = f"{broken} of {tried} rules broken" if broken else f"all {tried} rules kept"
    lines.append(f"{counts}, {skipped} not tried" if skipped else counts)
    return "\n".join(lines)


def _json(results: Sequence[CheckResult]) -> str:
    return json.dumps(
        {"ok": not any(one.breaches for one in results), "checks": [dataclasses.asdict(one) for one in results]},
        indent=2,
    )
