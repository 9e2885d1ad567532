"""Commands that a release starts, and its one error."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

WITHIN_S = 900.0
"""Long enough for an index that answers slowly."""


class ReleaseError(Exception):
    """Nothing can be released; the message is one line: what, where, what to do."""


def output_of(
    command: Sequence[str | Path], folder: Path, purpose: str, variables: Mapping[str, str] | None = None
) -> str:
    """A command's standard output. Raises ReleaseError with the purpose and the last line that the command printed."""
    environment = {**os.environ, **(variables or {})}
    words = [str(word) for word in command]
    try:
        done = subprocess.run(  # noqa: S603  # our own commands
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ReleaseError(f"{purpose}: {words[0]}: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise ReleaseError(f"{purpose}: {last}")
    return done.stdout
