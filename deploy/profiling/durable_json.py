"""A JSON file that a crash leaves as it was or as it is to be, and on the disk when it is written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def replace_json(file: Path, content: Mapping[str, Any]) -> None:
    """Put ``content`` in the place of the file's. Raises OSError."""
    draft = file.with_name(f".{file.name}.new")
    with draft.open("w", encoding="utf-8") as written:
        json.dump(content, written, indent=1)
        written.flush()
        os.fsync(written.fileno())
    draft.replace(file)
