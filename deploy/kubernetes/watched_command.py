"""Runs other programs for `deploy/kubernetes/try`: each within a time, and the long ones with a sign of life."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

QUICK_S = 60.0
"""For a question that a program answers at once."""
HEARTBEAT_S = 15.0
END_S = 10.0
SHOWN_WORDS = 4


class TryError(Exception):
    """The evaluation cannot go on; the message is one line: what, where, what to do."""


def show(line: str) -> None:
    """Print at once, also into a pipe: programs in between write to the same place."""
    print(line, flush=True)


@dataclass(frozen=True, slots=True)
class Programs:
    """Starts programs with these variables and no others."""

    environment: Mapping[str, str]
    heartbeat_s: float = HEARTBEAT_S

    def run(self, words: Sequence[str], purpose: str, within_s: float) -> None:
        """Run to the end; its output is shown. Raises TryError where it fails or takes longer; it has ended then."""
        try:
            process = subprocess.Popen(  # noqa: S603  # words of ours
                list(words),
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise TryError(f"{purpose}: {words[0]}: {error.strerror or error}") from error
        try:
            code = self._ended(process, purpose, within_s)
        except BaseException:
            _end(process)
            raise
        if code != 0:
            raise TryError(f"{purpose}: `{_short(words)}` ended with {code}; see its words above")

    def _ended(self, process: subprocess.Popen[bytes], purpose: str, within_s: float) -> int:
        began = time.monotonic()
        while True:
            spent_s = time.monotonic() - began
            if spent_s >= within_s:
                raise TryError(f"{purpose}: not done within {within_s:.0f} s")
            try:
                return process.wait(min(self.heartbeat_s, within_s - spent_s))
            except subprocess.TimeoutExpired:
                show(f"      {purpose}: {time.monotonic() - began:.0f} s of at most {within_s:.0f} s")

    def answer(self, words: Sequence[str], purpose: str, within_s: float = QUICK_S, given: str | None = None) -> str:
        """A program's standard output. Raises TryError with the last line that it wrote."""
        done = self._done(words, purpose, within_s, given)
        if done.returncode != 0:
            last = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise TryError(f"{purpose}: `{_short(words)}`: {last}")
        return done.stdout

    def succeeds(self, words: Sequence[str], purpose: str, within_s: float = QUICK_S) -> bool:
        """Whether a program ends with 0. Raises TryError where it cannot be started or takes longer."""
        return self._done(words, purpose, within_s, None).returncode == 0

    def _done(
        self, words: Sequence[str], purpose: str, within_s: float, given: str | None
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603  # words of ours
                list(words),
                env=dict(self.environment),
                input="" if given is None else given,
                capture_output=True,
                text=True,
                timeout=within_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TryError(f"{purpose}: `{_short(words)}` did not answer within {within_s:.0f} s") from error
        except OSError as error:
            raise TryError(f"{purpose}: {words[0]}: {error.strerror or error}") from error


def _short(words: Sequence[str]) -> str:
    return " ".join([os.path.basename(words[0]), *words[1:SHOWN_WORDS]])  # noqa: PTH119  # a word, maybe no path


def _end(process: subprocess.Popen[bytes]) -> None:
    """It and what it started: a build goes on otherwise."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(END_S)
            break
        except subprocess.TimeoutExpired:
            continue
