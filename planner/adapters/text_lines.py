"""Lines of a text file, plain or gzip, in bounded memory: lines and whole files have a largest length."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from bus_schemas.regular_files import open_regular

GZIP_MAGIC = b"\x1f\x8b"
LONGEST_LINE_BYTES = 1 << 20
MOST_BYTES = 1 << 30


class TextFileError(Exception):
    """A file that cannot be read. The message is one line: file, line number where there is one, reason."""


def text_lines(path: Path, most_bytes: int = MOST_BYTES) -> Iterator[tuple[int, str]]:
    """(number from 1, text without its end) of every line; ``most_bytes`` of unpacked text. Raises TextFileError."""
    try:
        with open_regular(path) as raw:
            packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
            raw.seek(0)
            text = gzip.GzipFile(fileobj=raw) if packed else raw
            number = total = 0
            while line := text.readline(LONGEST_LINE_BYTES + 1):
                number += 1
                total += len(line)
                if len(line) > LONGEST_LINE_BYTES:
                    raise TextFileError(f"{path}: line {number}: longer than {LONGEST_LINE_BYTES} bytes")
                if total > most_bytes:
                    raise TextFileError(f"{path}: line {number}: the text is longer than {most_bytes} bytes")
                yield number, _decoded(path, number, line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TextFileError(f"{path}: broken gzip: {error}") from error
    except OSError as error:
        raise TextFileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _decoded(path: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise TextFileError(f"{path}: line {number}: not text (UTF-8)") from None
