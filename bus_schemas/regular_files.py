"""Reads files that people name, within bounds: no device, pipe or endless file stops a program or fills its memory."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

SECRET_BYTES = 1 << 20
"""Most bytes of a password, token, key or credentials file."""
SETTINGS_BYTES = 1 << 20


def open_regular(path: Path | str) -> BinaryIO:
    """The file, open for reading. Raises OSError, also if it is not a regular file; never waits for a writer."""
    # Without O_NONBLOCK opening a pipe waits until someone writes to it.
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    kind = os.fstat(number).st_mode
    if not stat.S_ISREG(kind):
        os.close(number)
        what = "a folder" if stat.S_ISDIR(kind) else "a pipe" if stat.S_ISFIFO(kind) else "a device or socket"
        raise OSError(errno.EINVAL, f"{what}, not a file", str(path))
    return os.fdopen(number, "rb")


def read_regular(path: Path | str, most_bytes: int) -> bytes:
    """The whole content. Raises OSError, also for more than ``most_bytes``."""
    with open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"longer than {most_bytes} bytes", str(path))
    return content


def read_secret(path: Path | str) -> str:
    """A secret in a file, without the space around it. Raises OSError, and ValueError if it is not text."""
    return read_regular(path, SECRET_BYTES).decode("utf-8").strip()
