"""The planner's lease for the time of a check: no planner leads meanwhile, and none led at its start."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus_schemas.errors import LeadershipLostError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.leader_election import Leadership

TTL_S = 5.0


class CannotCheckError(Exception):
    """The deployment cannot be checked now; the text says why and what to do."""


@asynccontextmanager
async def alone(bus: Bus, ttl_s: float = TTL_S) -> AsyncIterator[None]:
    """Hold the planner's lease for the body, which is cancelled when it is lost. Raises CannotCheckError."""
    # Without signs: the next leader must not believe that a planner led until now.
    lease = Leadership(bus, f"connector check on {socket.gethostname()} ({os.getpid()})", ttl_s, signs=False)
    if not await lease.try_acquire():
        if lease.leader is None:
            why = lease.hindrance or "another planner has just begun to lead"
            raise CannotCheckError(f"the planner's lease cannot be taken now: {why}; try again")
        raise CannotCheckError(
            f"planner {lease.leader.holder} leads on this bus: stop it, or check on a bus (or --prefix) of its own"
        )
    try:
        async with lease.lead():
            yield
    except LeadershipLostError as error:
        raise CannotCheckError(
            f"the check ended, because it lost the planner's lease ({error}): stop all planners of this bus, and check "
            "again"
        ) from error
