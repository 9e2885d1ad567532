"""``python -m tests.goldens check | record | show SOURCE KEY``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from tests.goldens.sources import SOURCES


def _check() -> int:
    found = [words for source in SOURCES if (words := source.difference()) is not None]
    print("\n".join(found) if found else f"goldens: {len(SOURCES)} sources as recorded")
    return 1 if found else 0


def _record() -> int:
    for source in SOURCES:
        print(f"{source.path.name}: {source.record()} lines, {source.path.stat().st_size} bytes")
    return 0


def _show(name: str, key: str) -> int:
    chosen = next((source for source in SOURCES if name in (source.name, source.name.removeprefix("day-"))), None)
    if chosen is None:
        print(f"no source {name!r}; there are {', '.join(source.name for source in SOURCES)}", file=sys.stderr)
        return 2
    for line in chosen.lines():
        if line.key == key:
            for part, value in zip(chosen.parts, line.parts, strict=True):
                print(f"{part}:\n{json.dumps(value, indent=1)}")
            return 0
    print(f"no line {key!r} in {chosen.name}: see {chosen.path.name}, with a space for _", file=sys.stderr)
    return 2


def main(words: Sequence[str] | None = None) -> int:
    """The exit code: 0 as recorded, 1 different, 2 not understood."""
    parser = argparse.ArgumentParser(prog="python -m tests.goldens")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("check", help="compare with what was recorded")
    actions.add_parser("record", help="write down today's behaviour")
    show = actions.add_parser("show", help="print what one line digests")
    show.add_argument("source")
    show.add_argument("key")
    given = parser.parse_args(words)
    if given.action == "show":
        return _show(given.source, given.key)
    return _check() if given.action == "check" else _record()


if __name__ == "__main__":
    sys.exit(main())
