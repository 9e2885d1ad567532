"""What a report in a file claims to be made of, and whether bus or archive still hold just that. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deploy.report.journal import StreamRange, digest
from deploy.report.period_report import FORMAT
from deploy.report.signature import Signature
from deploy.report.usage import Period


class NotAReportError(ValueError):
    """The text is no report of this format; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a report's file claims to be made of."""

    period: Period
    ranges: tuple[StreamRange, ...]
    sha256: str
    signature: Signature | None


def claimed(text: str) -> Claimed:
    """The evidence part of a report in JSON. Raises NotAReportError."""
    try:
        value: Any = json.loads(text)
        form = value["format"]
        evidence = value["evidence"]
        ranges = tuple(StreamRange(**one) for one in evidence["streams"])
        signature = evidence.get("signature")
        period = Period(datetime.fromisoformat(value["since"]), datetime.fromisoformat(value["until"]))
        found = Claimed(period, ranges, evidence["sha256"], Signature(**signature) if signature else None)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotAReportError("not a report in JSON (make one with --out FILE.json)") from error
    if form != FORMAT:
        raise NotAReportError(f"its format is {form!r}, not {FORMAT!r}")
    return found


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
    whole = digest(claims.ranges) == claims.sha256
    lines.append((whole, "its digest is that of its streams" if whole else "its digest is not that of its streams"))
    return lines
