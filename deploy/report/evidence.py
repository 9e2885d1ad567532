"""What a report in a file claims to be made of, and whether bus or archive still hold just that. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Any

from deploy.report.journal import StreamRange, digest
from deploy.report.period_report import FORMAT, PeriodReport, as_json
from deploy.report.signature import Signature
from deploy.report.usage import Period, Prices
from deploy.views.kept_records import RECORDS_LAST, RECORDS_OF_EACH


class NotAReportError(ValueError):
    """The text is no report of this format; the message says what is wrong."""


FIGURES = ("deployments", "sites", "decisions", "what_if")
"""The parts of a report that follow from its messages and prices."""
LATER_FIGURES = ("classes",)
LATER_FIELDS = ("service_class", "judged", "load_time_scale")
"""Parts, and fields of a deployment, that reports of earlier versions do not have."""
REMEDY = (
    f"the bus keeps plan records for {RECORDS_LAST}, and {RECORDS_OF_EACH}: `wattscale archive FOLDER` keeps "
    "what it held while that ran, and --archive FOLDER reads it here"
)
"""What to do about messages that are gone; nothing can be done afterwards where no archive was kept."""
DIFFER = "its figures are not computed again: its messages are not those of the period"
NOT_THEIRS = "its figures are not those that the messages give"


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a report's file claims to be made of. ``in_force``: the messages from before the period.

    ``figures``: by part of the report, as plain data.
    """

    period: Period
    prices: Prices
    what_if: bool
    ranges: tuple[StreamRange, ...]
    in_force: tuple[StreamRange, ...]
    sha256: str
    signature: Signature | None
    figures: dict[str, Any]


def claimed(text: str) -> Claimed:
    """What a report in JSON claims. Raises NotAReportError."""
    try:
        value: Any = json.loads(text)
        form, evidence, prices = value["format"], value["evidence"], value["prices"]
        signature = evidence["signature"]
        found = Claimed(
            period=Period(_moment(value["since"]), _moment(value["until"])),
            prices=Prices(_price(prices["kwh"]), _price(prices["gpu_hour"])),
            what_if=value["what_if"] is not None,
            ranges=tuple(_range(one) for one in evidence["streams"]),
            in_force=tuple(_range(one) for one in evidence["in_force"]),
            sha256=_text(evidence["sha256"]),
            signature=Signature(_text(signature["public_key"]), _text(signature["base64"])) if signature else None,
            figures={name: value[name] for name in (*FIGURES, *LATER_FIGURES) if name in FIGURES or name in value},
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise NotAReportError("not a report in JSON (make one with --out FILE.json)") from error
    if form != FORMAT:
        raise NotAReportError(f"its format is {form!r:.60}, not {FORMAT!r}")
    return found


def _moment(value: Any) -> datetime:
    """A time with a zone, in UTC. Raises ValueError, TypeError, OverflowError."""
    at = datetime.fromisoformat(value)
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    return at.astimezone(UTC)


def _price(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError("a price is a number")
    if value is not None and not math.isfinite(float(value)):
        raise ValueError("a price is finite")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("not a whole number")
    return value


def _range(value: Any) -> StreamRange:
    stream, sha256 = _text(value["stream"]), _text(value["sha256"])
    return StreamRange(stream, _whole(value["first"]), _whole(value["last"]), _whole(value["count"]), sha256)


def recomputed(claims: Claimed, found: PeriodReport) -> list[tuple[bool, str]]:
    """Whether the figures of the file are those that the messages give, a line each: (agrees, text).

    They can only be compared where the messages from before the period are the same too. Figures that the file does not
    have, because it was made by an earlier version, are not compared.
    """
    if found.in_force != claims.in_force:
        what = "what was in force when the period began is not there any more, or differs"
        return [(False, f"{what}: its figures cannot be computed again; {REMEDY}")]
    wanted = json.loads(json.dumps(as_json(found)))
    wanted["deployments"] = _of_its_version(claims.figures["deployments"], wanted["deployments"])
    lines = []
    for name, given in claims.figures.items():
        same, words = given == wanted[name], name.replace("_", "-")
        lines.append((same, f"{words}: " + ("as the messages give them" if same else NOT_THEIRS)))
    return lines


def _of_its_version(given: Any, wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without the later fields that the same row of ``given`` does not have."""
    if not isinstance(given, list):
        return wanted
    rows = []
    for row, own in zip_longest(wanted, given[: len(wanted)]):
        known = own if isinstance(own, dict) else row
        rows.append({key: value for key, value in row.items() if key in known or key not in LATER_FIELDS})
    return rows


def not_recomputed(claims: Claimed, found: Sequence[StreamRange]) -> str:
    """Why the figures are not computed again where the messages differ, and what to do where some are gone."""
    here = {one.stream: one.count for one in found}
    gone = any(here.get(claim.stream, 0) < claim.count for claim in claims.ranges)
    return f"its figures are not computed again: its messages are not all there; {REMEDY}" if gone else DIFFER


def compared(claims: Claimed, found: Sequence[StreamRange]) -> list[tuple[bool, str]]:
    """One line per stream, and whether it agrees: (agrees, text). Messages that are gone cannot agree."""
    by_stream = {one.stream: one for one in found}
    lines = []
    for claim in claims.ranges:
        here = by_stream.get(claim.stream)
        count = here.count if here else 0
        if here is not None and here.sha256 == claim.sha256:
            lines.append((True, f"{claim.stream}: {claim.count} messages, as reported"))
        elif count < claim.count:
            gone = claim.count - count
            lines.append((False, f"{claim.stream}: {gone} of {claim.count} messages are not there any more"))
        else:
            lines.append((False, f"{claim.stream}: {claim.count} messages differ from the report"))
    claimed_streams = {claim.stream for claim in claims.ranges}
    for stream, here in sorted(by_stream.items()):
        if stream not in claimed_streams:
            lines.append((False, f"{stream}: {here.count} messages of the period are not in the report"))
    whole = digest(claims.ranges, claims.in_force) == claims.sha256
    lines.append((whole, "its digest is that of its streams" if whole else "its digest is not that of its streams"))
    return lines
