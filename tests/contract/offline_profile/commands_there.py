"""Runs the commands that stdin lists as JSON, and prints what came of each. Runs in an environment of its own."""

from __future__ import annotations

import dataclasses
import json
import sys

from tests.command_line import run

if __name__ == "__main__":
    print(json.dumps([dataclasses.asdict(run(*words)) for words in json.load(sys.stdin)]))
