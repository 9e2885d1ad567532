"""Files that are made from code and kept in the tree: written, or checked for a difference."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path


def differing(files: Mapping[Path, str]) -> dict[Path, str]:
    """Those of the files that differ from their text, with the text."""
    return {path: text for path, text in files.items() if not path.exists() or path.read_text() != text}


def write_or_check(files: Mapping[Path, str]) -> int:
    """Write what differs, or with the argument ``--check`` only name it; the exit code."""
    wrong = differing(files)
    if "--check" in sys.argv[1:]:
        for path in wrong:
            print(f"differs: {path.name}")
        return 1 if wrong else 0
    for path, text in wrong.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return 0
