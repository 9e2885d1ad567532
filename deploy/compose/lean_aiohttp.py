"""Import aiohttp without its copy of the system's certificate authorities: 2 MB that the agent never uses.

aiohttp makes a client context with every public authority while it is imported. The agent's own clients bring their
own contexts (`agent.adapters.kubernetes.access`, `bus_schemas.jetstream.connect`), which are made later and see the
system's authorities as usual.
"""

from __future__ import annotations

import os

AUTHORITIES = "SSL_CERT_FILE"


def import_aiohttp() -> None:
    """Import aiohttp's client, with no authority to load; the environment is as before when it returns.

    Has no effect where aiohttp was imported already. Call it before any thread or child process is started.
    """
    before = os.environ.get(AUTHORITIES)
    os.environ[AUTHORITIES] = os.devnull
    try:
        import aiohttp.connector  # noqa: F401
    finally:
        if before is None:
            del os.environ[AUTHORITIES]
        else:
            os.environ[AUTHORITIES] = before
