"""Who may steer from the page: tokens with the names of their holders, and how often they may try. Pure but for `read`.

A token's name stands in every command that is given with it, so nobody can give one under the name of somebody else.
"""

from __future__ import annotations

import hmac
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from bus_schemas.regular_files import read_secret

SHORTEST_TOKEN = 24
WORD = re.compile(r"[\x21-\x7e]+")
MOST_KNOWN = 1024


class SteerTokenError(ValueError):
    """A file of tokens that cannot be used; never holds a token."""


def read(path: Path) -> SteerTokens:
    """The tokens of a file with lines of ``NAME TOKEN``. Raises SteerTokenError, in one line."""
    try:
        text = read_secret(path)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not text"
        raise SteerTokenError(f"{path}: cannot be read: {problem}") from None
    try:
        return SteerTokens(dict(_lines(text)))
    except SteerTokenError as error:
        raise SteerTokenError(f"{path}: {error}") from None


def _lines(text: str) -> Iterator[tuple[str, str]]:
    seen = set[str]()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or not all(WORD.fullmatch(word) for word in words):
            raise SteerTokenError(f"line {number}: not NAME TOKEN, two words of printable ASCII")
        name, token = words
        if len(token) < SHORTEST_TOKEN:
            raise SteerTokenError(
                f"line {number}: the token of {name} has fewer than {SHORTEST_TOKEN} characters; "
                "`openssl rand -hex 32` makes one"
            )
        if name in seen or token in seen:
            raise SteerTokenError(f"line {number}: the name or the token of {name} is there twice")
        seen |= {name, token}
        yield name, token
    if not seen:
        raise SteerTokenError("no token in it; write lines of NAME TOKEN")


class SteerTokens:
    """Keeps digests only: no token can be printed from here."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._digests = {name: _digest(token) for name, token in tokens.items()}

    def holder(self, token: str) -> str | None:
        """The name of the token's holder; None for a wrong one. Takes as long for every token."""
        given, found = _digest(token), None
        for name, digest in self._digests.items():
            if hmac.compare_digest(given, digest):
                found = name
        return found


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


@dataclass(slots=True)
class RateLimit:
    """``count`` at once, and then as many in each ``per_s`` seconds, for each of the newest 1,024 keys."""

    count: int
    per_s: float
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    """By key: how many are left, and at what time."""

    def wait_s(self, key: str, now_s: float) -> float:
        """Seconds until the key has one left; 0 where it has."""
        left = self._now(key, now_s)
        return 0.0 if left >= 1.0 else (1.0 - left) * self.per_s / self.count

    def take(self, key: str, now_s: float) -> None:
        """Count one."""
        self._left[key] = self._now(key, now_s) - 1.0, now_s
        self._left.move_to_end(key)
        while len(self._left) > MOST_KNOWN:
            self._left.popitem(last=False)

    def _now(self, key: str, now_s: float) -> float:
        left, at_s = self._left.get(key, (float(self.count), now_s))
        return min(float(self.count), left + max(0.0, now_s - at_s) * self.count / self.per_s)
