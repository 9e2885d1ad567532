"""The parser of every command: a mistake is one line with the nearest known name.

Where the words themselves are wrong, that command's own usage stands above the line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from deploy.cli.errors import UsageError
from deploy.cli.nearest import hint, nearest


class CommandParser(argparse.ArgumentParser):
    """argparse's parser, whose sub-commands report their own unknown arguments instead of leaving them to the first.

    Every mistake raises UsageError.
    """

    def parse_known_args(  # type: ignore[override]  # as argparse's own, which takes and returns Any
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, but nothing unknown is left over. Raises UsageError."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown[0]))
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Print this command's usage, and raise UsageError."""
        self.print_usage(sys.stderr)
        raise UsageError(message)

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"unexpected argument {word!r}"
        name = word.partition("=")[0]
        options = [(action, option) for action in self._actions for option in action.option_strings]
        close = nearest(name, (option for _, option in options))
        shown = [option for action, option in options if action.help != argparse.SUPPRESS and option.startswith("--")]
        return f"unknown option {name}: {f'did you mean {close!r}?' if close else hint(name, shown)}"

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            # argparse takes the value of ``--reason=--`` for the end of the options, and sets an empty list.
            value = self._get_value(action, arg_strings[0])
            self._check_value(action, value)
            return value
        return super()._get_values(action, arg_strings)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            # The words are right and a value is not: the usage would only hide which.
            raise UsageError(f"{_shown(action)}: {error.message}") from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        text = f"{_shown(action)}: there is no {str(value)!r}: {hint(str(value), map(str, action.choices))}"
        if action.nargs == argparse.PARSER:
            self.error(text)
        raise UsageError(text)


def _shown(action: argparse.Action) -> str:
    return action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)
