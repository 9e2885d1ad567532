"""Every command of the command line with what it must be given, read from the parser itself."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.cli.main import build_parser

EXAMPLES = {
    "deployment": "prod-llama",
    "node": "node-1",
    "watts": "5000",
    "replicas": "prefill=2",
    "shell": "bash",
    "folder": str(Path(tempfile.gettempdir(), "wattscale-archive-of-a-test")),
}


@dataclass(frozen=True, slots=True, repr=False)
class Command:
    """A command's words, the positional arguments that it needs, and its options."""

    words: tuple[str, ...]
    needed: tuple[str, ...]
    options: tuple[argparse.Action, ...]

    def __repr__(self) -> str:
        return f"Command({' '.join(self.words)})"

    def takes(self, dest: str) -> str | None:
        """The option that fills ``dest``, or None."""
        return next((one.option_strings[0] for one in self.options if one.dest == dest), None)


def commands() -> list[Command]:
    """All commands."""
    return list(_below(build_parser(), ()))


def _below(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[Command]:
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in inner:
        for name, child in action.choices.items():
            yield from _below(child, (*words, name))
    if not inner:
        needed = tuple(
            EXAMPLES[action.dest] for action in parser._actions if not action.option_strings and action.nargs != "?"
        )
        yield Command(words, needed, tuple(action for action in parser._actions if action.option_strings))
