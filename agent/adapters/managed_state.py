"""Which GPUs are ours, and which limit was found on each: one small file that outlives a crash.

Owns the file. A missing or empty one is a first start. One that can not be read is left as it is and nothing is
restored by it: restoring a wrong limit is worse than leaving a cap. It is replaced whole, never half.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)
VERSION = 1


class ManagedState:
    """The file at ``path``; None keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._written: dict[str, int] | None = None
        self.broken = False
        """The file is there and can not be understood: it is neither used nor overwritten."""

    def read(self) -> dict[str, int]:
        """Limits found, in milliwatts, by GPU."""
        if self._path is None:
            return {}
        try:
            text = self._path.read_text()
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
        """Replace the file if anything changed. A disk that refuses is said, and tried again at the next change."""
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
            log.error(  # noqa: TRY400 - one line says it all
                "the list of managed GPUs can not be kept at %s: %s", self._path, error
            )
            return
        self._written = dict(found_mw)

    def _give_up(self, why: str) -> dict[str, int]:
        self.broken = True
        log.error("%s can not be read (%s): it is left as it is, and nothing is restored by it", self._path, why)
        return {}
