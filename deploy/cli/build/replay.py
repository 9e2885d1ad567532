"""`wattscale replay`: recorded observations through today's code, decisions compared."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.cli.bus_address import add_bus_options
from deploy.cli.bus_connection import reached
from deploy.cli.errors import CliError, UsageError
from deploy.cli.run.planner import UnusableSettingsError, add_settings, loaded

if TYPE_CHECKING:
    from bus_schemas import v1
    from planner.domain.config import PlannerConfig
    from planner.sim.evaluation.replay import Compared, Tick

JOURNAL_BYTES = 256 << 20


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "replay",
        help="run recorded observations through today's code and compare the decisions",
        description="Takes the observations that a planner kept in its plan records (its setting `journal`), runs "
        "them through the code and the settings of this installation, and shows where more or fewer replicas would be "
        "desired. Exit code 1 when any decision differs.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from-bus", action="store_true", help="read the plan records that the bus still holds")
    source.add_argument(
        "--journal",
        type=Path,
        metavar="FILE",
        help="read plan records from a file: one JSON object a line, plain or gzip",
    )
    source.add_argument("--archive", type=Path, metavar="FOLDER", help="read what `wattscale archive` kept there")
    parser.add_argument("--deployment", metavar="NAME", help="only this deployment")
    parser.add_argument("--all", action="store_true", help="also show decisions that agree")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.add_argument("--save", type=Path, metavar="FILE", help="with --from-bus: save the records for --journal")
    add_settings(parser)
    add_bus_options(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from planner.sim.evaluation.replay import replayed

    config = _config(args)
    records = _records(args)
    if args.save is not None:
        _save(args.save, records)
    ticks = list(_ticks(args, records, config))
    if not ticks:
        where = args.journal or args.archive or "the bus"
        raise CliError(f"{where}: no plan record with an observation; is `journal` on in the planner's settings?")
    compared = list(replayed(config, ticks))
    _show(args, compared)
    return 0 if all(each.same for each in compared) else 1


def _records(args: argparse.Namespace) -> list[v1.PlanRecord]:
    if args.journal:
        return _from_file(args.journal)
    return _from_archive(args.archive) if args.archive else asyncio.run(_from_bus(args))


def _from_archive(folder: Path) -> list[v1.PlanRecord]:
    from bus_schemas import v1
    from deploy.archive.day_files import ArchiveError, DayFiles
    from deploy.report.journal import merged

    if not folder.is_dir():
        raise UsageError(f"--archive {folder}: no such folder")
    files = DayFiles(folder)
    try:
        kept = merged(*(files.of_day(day) for day in files.days()))
    except (ArchiveError, OSError) as error:
        raise UsageError(f"--archive: {error}") from error
    return [entry.message for entry in kept if isinstance(entry.message, v1.PlanRecord)]


def _save(path: Path, records: Sequence[v1.PlanRecord]) -> None:
    try:
        path.write_text("".join(record.model_dump_json() + "\n" for record in records), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--save {path}: cannot be written: {error.strerror or error}") from error


def _config(args: argparse.Namespace) -> PlannerConfig:
    from deploy.compose.core_config import planner_config
    from deploy.compose.settings_layers import SettingsError

    try:
        return planner_config(loaded(args).settings, offline=True)
    except SettingsError as error:
        raise UnusableSettingsError(error.problems) from error


def _from_file(path: Path) -> list[v1.PlanRecord]:
    from planner.adapters.text_lines import TextFileError, text_lines

    try:
        return [_record(path, number, line) for number, line in text_lines(path, JOURNAL_BYTES) if line.strip()]
    except TextFileError as error:
        raise UsageError(str(error)) from error


def _record(path: Path, number: int, line: str) -> v1.PlanRecord:
    from bus_schemas import v1

    try:
        return v1.PlanRecord.model_validate_json(line)
    except ValueError as error:
        what = str(error).splitlines()[0]
        raise UsageError(f"{path}: line {number}: not a plan record: {what}") from error


async def _from_bus(args: argparse.Namespace) -> list[v1.PlanRecord]:
    from bus_schemas import v1
    from bus_schemas.jetstream.reader import next_messages

    found: list[v1.PlanRecord] = []
    async with reached(args) as bus:
        wildcard = (
            bus.subjects.telemetry_plan(args.deployment)
            if args.deployment
            else bus.subjects.all_of("telemetry", "plan")
        )
        sequence = 0
        while page := await next_messages(bus, wildcard, sequence, 256):
            sequence = page[-1].sequence
            found += [stored.message for stored in page if isinstance(stored.message, v1.PlanRecord)]
    return found


def _ticks(args: argparse.Namespace, records: Sequence[v1.PlanRecord], config: PlannerConfig) -> Iterator[Tick]:
    """The ticks of records that hold an observation. Raises UsageError for a record that cannot be read."""
    from planner.adapters import journal
    from planner.domain.ids import DeploymentId, PoolId
    from planner.domain.units import GpuSetpoint, mw_from_watts
    from planner.sim.evaluation.replay import PoolCounts, Tick

    for record in records:
        name = DeploymentId(record.deployment)
        if record.journal is None or (args.deployment and name != args.deployment):
            continue
        if name not in config.deployments:
            known = ", ".join(config.deployments)
            raise UsageError(
                f"the settings have no deployment {name!r}, only {known}; add it to the file given with --config"
            )
        try:
            now_s, seen = journal.observation(record.journal)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"record of {record.time:%H:%M:%S}: cannot be replayed: {error}") from error
        pools = {
            PoolId(pool): PoolCounts(
                recorded.current,
                recorded.wanted,
                recorded.granted,
                recorded.chain[-1].code if recorded.chain else "",
                None if recorded.cap_watts is None else GpuSetpoint(mw_from_watts(recorded.cap_watts)),
            )
            for pool, recorded in record.pools.items()
        }
        yield Tick(name, now_s, seen, pools)


def _show(args: argparse.Namespace, compared: Sequence[Compared]) -> None:
    from bus_schemas.visible_text import visible

    differ = [each for each in compared if not each.same]
    if args.json:
        rows = [{**asdict(each), "same": each.same} for each in compared]
        print(json.dumps({"decisions": len(compared), "different": len(differ), "rows": rows}, indent=2))
        return
    for each in compared if args.all else differ:
        now = f"{each.now.wanted} ({each.now.reason})" if each.now is not None else "no such pool"
        line = (
            f"{' ' if each.same else '*'} {each.now_s:12.1f} s  {each.deployment} {each.pool}: "
            f"wanted {each.then.wanted} ({each.then.reason}) then, {now} now: {each.sentence}"
        )
        print(visible(line))
    print(f"{len(compared)} decisions replayed, {len(differ)} differ", file=sys.stderr)
