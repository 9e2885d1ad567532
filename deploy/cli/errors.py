"""Errors that end a command with one clear line instead of a traceback, and the exit codes."""

from __future__ import annotations


class CliError(Exception):
    """Ends the command: one line on standard error (what, where, what to do) and an exit code.

    Several mistakes that were found together are a line each.
    """

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


class UsageError(CliError):
    """Bad input or a bad setting: exit code 2. Nothing was started, or everything started was stopped again."""

    exit_code = 2


class NotNowError(CliError):
    """What was asked for is right, and this machine lacks a part of it now: the same command works once it is there.

    Exit code 2, as for any other setting of the machine; 1 where work was under way.
    """

    def __init__(self, *lines: str, exit_code: int = 2) -> None:
        super().__init__(*lines)
        self.exit_code = exit_code


class BusProblemError(CliError):
    """The bus cannot be reached, refuses this login, or lacks what the command reads: exit code 3."""

    exit_code = 3
