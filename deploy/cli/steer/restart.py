"""`wattscale deployment restart`: has the workers of a deployment's graph restarted, and follows it."""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from deploy.cli.bus_connection import reached
from deploy.cli.errors import CliError
from deploy.cli.numbers import number
from deploy.cli.steer.known_names import check_deployment
from deploy.cli.steer.sending import command_of, send, user_name

if TYPE_CHECKING:
    from bus_schemas import v1
    from bus_schemas.jetstream.connect import Bus

WAIT_S = 1800.0
LONGEST_WAIT_S = 86_400.0
POLL_S = 0.2


def add_restart(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument(
        "--strategy",
        choices=("sequential", "parallel"),
        default="sequential",
        help="one component at a time (always, where the site has a power budget), or all at once",
    )
    parser.add_argument(
        "--order", type=_names, default=(), metavar="A,B", help="every component once, the first one first"
    )
    parser.add_argument("--id", help="what tells this restart from others (default: a new one)")
    parser.add_argument("--wait", action="store_true", help="until it has ended; exit 1 if it failed or not in time")
    parser.add_argument(
        "--wait-s", type=number(0, LONGEST_WAIT_S, above=True), default=WAIT_S, metavar="S", help="longest wait"
    )
    parser.set_defaults(run=lambda args: asyncio.run(_restart(args)))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


async def _restart(args: argparse.Namespace) -> int:
    from bus_schemas import v1
    from bus_schemas.visible_text import visible, visible_json
    from deploy.views.bus_reader import names

    restart_id = args.id or f"restart-{uuid.uuid4().hex[:12]}"
    async with reached(args) as bus:
        if not args.force:
            check_deployment(await names(bus), args.deployment, {})
        subject = bus.subjects.control_deployment(args.deployment)
        message = command_of(
            v1.DeploymentControl,
            time=datetime.now(UTC),
            deployment=args.deployment,
            **await _repeated(bus, subject),
            restart={"restart_id": restart_id, "strategy": args.strategy, "order": args.order},
            reason=args.reason,
            issued_by=user_name(),
        )
        await send(bus, subject, message)
        shown = visible_json(message.model_dump_json())
        print(shown if args.json else visible(f"deployment {args.deployment}: restart {restart_id}"), flush=True)
        return await _follow(bus, args, restart_id) if args.wait else 0


async def _repeated(bus: Bus, subject: str) -> dict[str, object]:
    """The command before, which a restart leaves in force; resuming what was never paused changes nothing."""
    from bus_schemas import v1
    from bus_schemas.jetstream.reader import last

    found = await last(bus, subject)
    if found is None or not isinstance(found.message, v1.DeploymentControl):
        return {"action": "resume"}
    before = found.message
    return {"action": before.action, "replicas": before.replicas, "command_id": before.command_id}


async def _follow(bus: Bus, args: argparse.Namespace, restart_id: str) -> int:
    from bus_schemas import v1
    from bus_schemas.jetstream.reader import last
    from bus_schemas.visible_text import visible

    deadline_s, shown = time.monotonic() + args.wait_s, ""
    while True:
        found = await last(bus, bus.subjects.ack_scaling(args.deployment))
        ack = found.message if found is not None else None
        progress = ack.restart if isinstance(ack, v1.ScalingAck) else None
        if progress is not None and progress.restart_id == restart_id:
            if (line := _words(progress)) != shown:
                shown = line
                print(visible(line), flush=True)
            if progress.phase == "completed":
                return 0
            if progress.phase in ("rejected", "failed", "superseded"):
                raise CliError(f"the restart was not done: {line}")
        if time.monotonic() >= deadline_s:
            last_words = shown or "no connector has reported it"
            raise CliError(f"not completed after {args.wait_s:g} s: {last_words}")
        await asyncio.sleep(POLL_S)


def _words(progress: v1.RestartProgress) -> str:
    now = f": {', '.join(progress.in_progress)}" if progress.in_progress else ""
    return f"{progress.phase}{now}{f' ({progress.reason})' if progress.reason else ''}"
