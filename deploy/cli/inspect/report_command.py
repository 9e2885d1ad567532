"""`wattscale report`: a period's figures, budget orders and evidence, and whether a report agrees with the bus."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from bus_schemas.regular_files import read_regular
from deploy.cli.bus_address import add_bus_options
from deploy.cli.bus_connection import NKEYS, reached
from deploy.cli.errors import UsageError
from deploy.cli.numbers import number
from deploy.cli.output_file import check_writable, write_output
from deploy.views.kept_records import RECORDS_LAST, RECORDS_OF_EACH

if TYPE_CHECKING:
    from deploy.report.evidence import Claimed
    from deploy.report.journal import Entry
    from deploy.report.period_report import PeriodReport
    from deploy.report.usage import Period

FORMS = ("html", "md", "csv", "json")
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MOST_PRICE = 1e6
SEED_BYTES = 4096
REPORT_BYTES = 64 << 20
SINCE, UNTIL = "1h", "0s"
NOT_WITH_CHECK = ("since", "until", "out", "json", "price_per_kwh", "price_per_gpu_hour", "what_if", "sign")
"""What a report to be checked states itself, or what only a new one can have."""
IN_FORCE = r"\.(decision\.(power|scaling)|ack\.power)\."
"""Subjects whose last message before the period says what was in force when it began."""
DESCRIPTION = (
    "Whether the budget held, with the evidence; how fast each budget command was in force; requests, GPU-hours, energy"
    " and cost by deployment; decisions and their reasons; incidents. Figures over a part of the period are marked, and"
    f" every gap is stated. Plan records stay on the bus for {RECORDS_LAST} at most, and only {RECORDS_OF_EACH};"
    " `wattscale archive` keeps them for reports and for --check. Exit code 1: --check found a difference."
)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("report", help="what happened in a period, with evidence", description=DESCRIPTION)
    parser.add_argument("--since", metavar="TIME", help="24h, 90m, 7d ago, or ISO 8601 (default: 1h)")
    parser.add_argument("--until", metavar="TIME", help="likewise (default: now)")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="FILE.html, .md, .csv or .json (default: Markdown, here)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    price = number(0, MOST_PRICE)
    parser.add_argument("--price-per-kwh", type=price, metavar="P", help="what a kWh costs, in any currency")
    parser.add_argument("--price-per-gpu-hour", type=price, metavar="P", help="what a GPU-hour costs, likewise")
    parser.add_argument(
        "--what-if", action="store_true", help="also what advisory planners would have done, and what that would save"
    )
    parser.add_argument("--sign", type=Path, metavar="NKEY", help="file with an NKEY's seed: sign the evidence")
    parser.add_argument("--check", type=Path, metavar="FILE.json", help="compare a report with bus or archive instead")
    parser.add_argument("--signer", metavar="KEY", help="with --check: the public key that must have signed it")
    parser.add_argument("--archive", type=Path, metavar="FOLDER", help="also read what `wattscale archive` kept there")
    parser.add_argument("--offline", action="store_true", help="with --archive: read no bus")
    add_bus_options(parser)
    parser.set_defaults(run=lambda args: asyncio.run(_check(args) if args.check else _report(args)))


async def _report(args: argparse.Namespace) -> int:
    from deploy.report.period_report import report
    from deploy.report.usage import Period, Prices
    from deploy.report.written import FORMS as WRITERS

    if args.signer:
        raise UsageError("--signer: only with --check")
    if args.json and args.out:
        raise UsageError("--json: prints; with --out the file's ending says the form")
    form = _form(args)
    now = datetime.now(UTC)
    since, until = args.since or SINCE, args.until or UNTIL
    period = Period(moment("--since", since, now), moment("--until", until, now))
    if period.since >= period.until:
        raise UsageError(f"--since {since}: not before --until {until}")
    seed = _seed(args.sign)
    found = await _entries(args, period)
    prices = Prices(args.price_per_kwh, args.price_per_gpu_hour)
    made = _signed(report(found, period, prices, now, what_if=args.what_if), seed)
    text = WRITERS[form](made)
    if args.out:
        from deploy.report.tables import headline

        write_output("--out", args.out, text)
        print(f"{args.out}: {headline(made)}")
    else:
        sys.stdout.write(text)
    return 0


async def _entries(args: argparse.Namespace, period: Period) -> list[Entry]:
    """From bus and archive, each message once. Raises UsageError for an archive that cannot be read."""
    from deploy.archive.day_files import ArchiveError, DayFiles
    from deploy.report.bus_entries import entries
    from deploy.report.journal import merged

    if args.offline and args.archive is None:
        raise UsageError("--offline: only with --archive")
    kept: list[Entry] = []
    if args.archive is not None:
        if not args.archive.is_dir():
            raise UsageError(f"--archive {args.archive}: no such folder")
        first, last = period.since.date(), period.until.date()
        try:
            files = DayFiles(args.archive)
            kept = await asyncio.to_thread(lambda: [*files.newest_before(first, IN_FORCE), *files.entries(first, last)])
        except (ArchiveError, OSError) as error:
            raise UsageError(f"--archive: {error}") from error
    if args.offline:
        return merged(kept)
    async with reached(args) as bus:
        return merged(kept, await entries(bus, period))


def _form(args: argparse.Namespace) -> str:
    if args.out is None:
        return "json" if args.json else "md"
    form = args.out.suffix.removeprefix(".").lower()
    if form not in FORMS:
        raise UsageError(f"--out {args.out}: the ending must be one of {', '.join(FORMS)}")
    check_writable("--out", args.out)
    return str(form)


def moment(option: str, text: str, now: datetime) -> datetime:
    """A time that is given as an age (``24h``) or in ISO 8601 (UTC where it names no zone). Raises UsageError."""
    try:
        if found := re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smhd])", text):
            return now - timedelta(seconds=float(found[1]) * UNITS_S[found[2]])
        at = datetime.fromisoformat(text)
        # Everything that is printed, and the archive's days, are UTC.
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except OverflowError:
        raise UsageError(f"{option} {text}: before the year 1, or after 9999") from None
    except ValueError:
        raise UsageError(f"{option}: must be like 24h, 90m, 7d or 2026-01-31T12:00, not {text!r}") from None


def _seed(path: Path | None) -> bytes | None:
    """Read before any work. Raises UsageError, without a word of the content."""
    if path is None:
        return None
    try:
        return read_regular(path, SEED_BYTES)
    except OSError as error:
        raise UsageError(f"--sign {path}: cannot be read: {error.strerror or error}") from error


def _signed(made: PeriodReport, seed: bytes | None) -> PeriodReport:
    from dataclasses import replace

    from deploy.report.signature import signed

    if seed is None:
        return made
    try:
        return replace(made, signature=signed(made.digest, seed))
    except ImportError:
        raise UsageError(NKEYS) from None
    except ValueError as error:
        raise UsageError(f"--sign: {error}") from None


async def _check(args: argparse.Namespace) -> int:
    from deploy.report.evidence import NotAReportError, claimed, compared, not_recomputed, recomputed
    from deploy.report.period_report import report

    for name in NOT_WITH_CHECK:
        given = getattr(args, name)
        if given is not None and given is not False:  # A price of 0 is given, too.
            raise UsageError(f"--{name.replace('_', '-')}: not with --check, which takes all of it from the report")
    try:
        claims = claimed(read_regular(args.check, REPORT_BYTES).decode())
    except NotAReportError as error:
        raise UsageError(f"--check {args.check}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a report in JSON"
        raise UsageError(f"--check {args.check}: cannot be read: {why}") from error
    entries = await _entries(args, claims.period)
    found = report(entries, claims.period, claims.prices, claims.period.until, what_if=claims.what_if)
    lines = compared(claims, found.evidence)
    if all(agrees for agrees, _ in lines):
        lines += recomputed(claims, found)
    else:
        lines.append((False, not_recomputed(claims, found.evidence)))
    lines += _signature(args, claims)
    for agrees, text in lines:
        print(f"{'ok  ' if agrees else 'FAIL'}  {text}")
    return 0 if all(agrees for agrees, _ in lines) else 1


def _signature(args: argparse.Namespace, claims: Claimed) -> list[tuple[bool, str]]:
    from deploy.report.signature import verified

    signature = claims.signature
    if signature is None:
        return [(not args.signer, "it is not signed")]
    try:
        genuine = verified(claims.sha256, signature)
    except ImportError:
        raise UsageError(NKEYS) from None
    if not genuine:
        return [(False, f"its signature is not one of {signature.public_key}")]
    if args.signer and signature.public_key != args.signer:
        return [(False, f"it is signed by {signature.public_key}, not by {args.signer}")]
    return [(True, f"it is signed by {signature.public_key}")]
