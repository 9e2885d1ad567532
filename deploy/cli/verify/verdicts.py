"""What `wattscale verify` concludes: one line for each check, with a verdict, a sentence and a remedy. Pure values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

LISTED = 5


class Verdict(StrEnum):
    """The result of one check."""

    PASS = "pass"  # noqa: S105  # a verdict, no password
    WARN = "warn"
    """Works, with a risk that the remedy removes."""
    FAIL = "fail"
    SKIPPED = "skipped"
    """Not checked; the sentence says why."""


class Group(StrEnum):
    """The parts of an installation, from bus to hardware."""

    INFRASTRUCTURE = "infrastructure"
    AUTOMATION = "automation"
    PROMETHEUS = "prometheus"
    FUNCTION = "function"
    HARDWARE = "hardware"


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One line of the table. ``remedy`` is empty where nothing has to be done."""

    group: Group
    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table before it is judged."""

    group: Group
    name: str

    def passed(self, detail: str) -> CheckLine:
        """The line of a check that holds."""
        return CheckLine(self.group, self.name, Verdict.PASS, detail)

    def warned(self, detail: str, remedy: str) -> CheckLine:
        """The line of a check that holds with a risk."""
        return CheckLine(self.group, self.name, Verdict.WARN, detail, remedy)

    def failed(self, detail: str, remedy: str) -> CheckLine:
        """The line of a check that does not hold."""
        return CheckLine(self.group, self.name, Verdict.FAIL, detail, remedy)

    def skipped(self, why: str) -> CheckLine:
        """The line of a check that was not made."""
        return CheckLine(self.group, self.name, Verdict.SKIPPED, why)


def listed(names: Iterable[str], most: int = LISTED) -> str:
    """The first names in their order, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def sentences(texts: Iterable[str]) -> str:
    """Several findings of one line."""
    every = list(texts)
    more = f"; and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return "; ".join(every[:LISTED]) + more
