"""The GPUs that annotations have capped and the limit found on each: one small file that survives a crash.

Owns the file. A missing or empty file means a first start. A file that cannot be read is left unchanged and nothing is
restored from it: restoring a wrong limit is worse than leaving a cap. The file is always replaced atomically.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from bus_schemas.regular_files import read_regular

log = logging.getLogger(__name__)
VERSION = 1
STATE_BYTES = 16 << 20


class ManagedState:
    """The file at ``path``; None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._written: dict[str, int] | None = None
        self.broken = False
        """The file exists but cannot be parsed: it is neither used nor overwritten."""

    def read(self) -> dict[str, int]:
        """Limits found, in milliwatts, by GPU."""
        if self._path is None:
            return {}
        try:
            text = read_regular(self._path, STATE_BYTES).decode()
        except FileNotFoundError:
            return {}
        except OSError as error:
            return self._give_up(str(error))
        if not text.strip():
            return {}
        try:
            document = json.loads(text)
            if document["version"] != VERSION:
                return self._give_up(f"version {document['version']}")
            found = {str(gpu): int(entry["found_mw"]) for gpu, entry in document["managed"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return self._give_up(f"{type(error).__name__}: {error}")
        self._written = dict(found)
        return found

    def write(self, found_mw: Mapping[str, int]) -> None:
        """Replace the file if anything changed. Write errors are logged and retried on the next change."""
        if self._path is None or self.broken or self._written == dict(found_mw):
            return
        document = {"version": VERSION, "managed": {gpu: {"found_mw": mw} for gpu, mw in sorted(found_mw.items())}}
        scratch = self._path.with_suffix(f".{os.getpid()}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("w") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self._path)
        except OSError as error:
            log.error(  # noqa: TRY400 - the one line holds everything
                "cannot write the list of managed GPUs to %s: %s", self._path, error
            )
            return
        self._written = dict(found_mw)

    def _give_up(self, why: str) -> dict[str, int]:
        self.broken = True
        log.error("cannot read %s (%s): the file is left unchanged and nothing is restored from it", self._path, why)
        return {}
