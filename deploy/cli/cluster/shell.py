"""`wattscale completion | manual`: completion for a shell, and the manual page, made from the commands' definitions."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from deploy.cli.errors import UsageError

SHELLS = ("bash", "zsh", "fish", "tcsh")
MISSING = "this command needs the package {name}: pip install 'wattscale[shell]'"
PAGE_WIDTH = "80"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    completion = subparsers.add_parser(
        "completion",
        help="print the completion of commands and options for a shell",
        description="Prints a script that completes commands, options and files. For bash: "
        "wattscale completion bash > ~/.local/share/bash-completion/completions/wattscale",
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.set_defaults(run=_completion)
    manual = subparsers.add_parser(
        "manual",
        help="print the manual page",
        description="Prints the manual page. To install it: wattscale manual > ~/.local/share/man/man1/wattscale.1",
    )
    manual.set_defaults(run=_manual)


def _completion(args: argparse.Namespace) -> int:
    from deploy.cli.main import build_parser

    try:
        import shtab
    except ModuleNotFoundError:
        raise UsageError(MISSING.format(name="shtab")) from None
    parser = build_parser()
    for action in _actions(parser):
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # the attribute that shtab looks for
    print(shtab.complete(parser, args.shell))
    return 0


def _manual(_: argparse.Namespace) -> int:
    from deploy.cli.main import build_parser

    try:
        from argparse_manpage.manpage import Manpage
    except ModuleNotFoundError:
        raise UsageError(MISSING.format(name="argparse-manpage")) from None
    os.environ["COLUMNS"] = PAGE_WIDTH  # argparse breaks the synopsis by the terminal that happens to be there
    print(Manpage(build_parser()))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:  # noqa: SLF001  # argparse has no public way to list them
        yield action
        if action.nargs == argparse.PARSER and isinstance(action.choices, dict):
            for child in action.choices.values():
                yield from _actions(child)
