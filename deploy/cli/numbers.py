"""Types of numeric options: each has its range, and anything outside is refused together with the option's name.

Not a number and infinities are outside every range.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

LONGEST_S = 366 * 86_400.0
"""The longest time that an option takes: a year."""
MOST_MS = 1e7
MOST_WATTS = 1e9
MOST_GPUS = 100_000
"""Most GPUs of a simulated cluster: each is an object in memory."""


def number(least: float, most: float, *, above: bool = False) -> Callable[[str], float]:
    """The type of an option that takes a number from ``least`` (``above``: excluded) to ``most``."""
    span = f"above {least:g} and at most {most:g}" if above else f"from {least:g} to {most:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (least < value if above else least <= value) or not value <= most:
            raise argparse.ArgumentTypeError(f"must be a number {span}, not {text!r}")
        return value

    return parse


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of an option that takes a whole number from ``least`` to ``most``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return value

    return parse
