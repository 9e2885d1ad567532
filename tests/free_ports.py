"""Ports for servers that must be told one before they start.

A port that the system chose and that was let go again may be somebody else's before the server takes it, and so may
one whose server was killed and starts again. The system gives out none below its ephemeral range, so these come from
there, each worker of a test run from a thousand of its own, and none twice in a run.
"""

from __future__ import annotations

import itertools
import os
import random
import socket

FIRST, SLICES, SLICE = 12_000, 20, 1_000
_WORKER = int("".join(filter(str.isdigit, os.environ.get("PYTEST_XDIST_WORKER", ""))) or 0)
_next = itertools.count(random.randrange(SLICE))


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on and nobody is given by chance."""
    for _ in range(SLICE):
        port = FIRST + _WORKER % SLICES * SLICE + next(_next) % SLICE
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError("no port is free")
