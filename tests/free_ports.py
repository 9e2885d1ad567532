"""Ports for servers that need to know theirs before they start.

A port that the system chose and that was released again may be taken by another process before the server binds it, and
so may the port of a server that was killed and starts again. The system assigns no port below its ephemeral range, so
these come from there: each worker of a test run has a thousand of its own, and uses none twice in a run.
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
    """A free port on 127.0.0.1, outside the range from which the system assigns ports."""
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
