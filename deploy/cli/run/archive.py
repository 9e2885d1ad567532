"""`wattscale archive`: keeps what the bus stores, longer than the bus does."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.cli.bus_address import add_bus_options
from deploy.cli.bus_connection import reached
from deploy.cli.errors import CliError, UsageError
from deploy.cli.numbers import number, whole
from deploy.event_loop import run as on_event_loop
from deploy.event_loop import until_signal

EVERY_S = 5.0
MOST_DAYS = 36_500
DESCRIPTION = (
    "Copies decisions, acknowledgements, commands, plan records and dead letters into one file a day, from where the"
    " files end. `wattscale report` and `replay` read them (--archive). It needs no more than an observer's login. Days"
    " that are over become Parquet, which needs the extra `archive`."
)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("archive", help="keep what the bus stores in files by day", description=DESCRIPTION)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made where it does not exist; one process each")
    parser.add_argument(
        "--every-s", type=number(0.1, 600.0), default=EVERY_S, metavar="S", help="how often to copy (default: 5)"
    )
    parser.add_argument(
        "--keep-days", type=whole(1, MOST_DAYS), metavar="N", help="drop older days (default: keep all)"
    )
    parser.add_argument("--once", action="store_true", help="copy what there is, and end")
    add_bus_options(parser)
    parser.set_defaults(run=lambda args: on_event_loop(_archive(args)))


async def _archive(args: argparse.Namespace) -> int:
    from bus_schemas.visible_text import visible_handler
    from deploy.archive.archiver import Archiver
    from deploy.archive.day_files import ArchiveError, DayFiles

    logging.basicConfig(level=logging.INFO, handlers=[visible_handler("%(levelname)s %(name)s: %(message)s")])
    try:
        with _alone(args.folder):
            async with reached(args) as bus:
                archiver = Archiver(bus, DayFiles(args.folder), keep_days=args.keep_days)
                await asyncio.to_thread(archiver.begin)
                if args.once:
                    await archiver.copy()
                    await asyncio.to_thread(archiver.tidy)
                else:
                    print(f"{args.folder}: what the bus stores is kept here, until Ctrl-C", flush=True)
                    await until_signal(archiver.run(args.every_s))
    except ArchiveError as error:
        raise CliError(str(error)) from error
    except OSError as error:
        raise CliError(f"{args.folder}: {error.strerror or error}") from error
    print(f"{args.folder}: {archiver.kept} messages kept")
    return 0


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder. Raises UsageError where another process does, OSError where it cannot be made."""
    folder.mkdir(parents=True, exist_ok=True)
    number_of_file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(number_of_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number_of_file)
        raise UsageError(f"{folder}: another archive writes here; give each its own folder") from None
    try:
        yield
    finally:
        os.close(number_of_file)
