"""Files that a command writes besides what it prints."""

from __future__ import annotations

from pathlib import Path

from deploy.cli.errors import UsageError


def check_writable(option: str, path: Path) -> None:
    """Raise UsageError, before any long work, where ``path`` cannot be a file."""
    if path.is_dir():
        raise UsageError(f"{option} {path}: a folder; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: no such folder: {path.parent}")


def write_output(option: str, path: Path, text: str) -> None:
    """Write the file. Raises UsageError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written: {error.strerror or error}") from error
