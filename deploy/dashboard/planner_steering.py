"""Commands from the page that a planner serves: their tokens, and an operator's login beside the planner's own."""

from __future__ import annotations

import asyncio

from bus_schemas.jetstream.connect import Bus, unopened
from bus_schemas.jetstream.settings import BusSettings
from deploy.cli.errors import UsageError
from deploy.dashboard.steer_tokens import SteerTokenError, SteerTokens, read
from deploy.dashboard.steering import Steering, log_commands
from planner.runtime.config.settings import Settings, SteeringSettings


def steer_tokens(block: SteeringSettings) -> SteerTokens:
    """Who may steer. Raises UsageError, in one line without a token, for a file that cannot be used."""
    try:
        return read(block.token_file)
    except SteerTokenError as error:
        raise UsageError(f"dashboard.steering.token_file {error}") from error


def operator_login(bus: BusSettings, block: SteeringSettings) -> BusSettings:
    """The planner's servers with the operator's credentials, and none of the planner's."""
    own = block.creds_file or block.nkey_seed_file or block.user
    return bus.model_copy(
        update={
            "name": f"{bus.name}-steering",
            "inbox_prefix": block.inbox_prefix,
            "creds_file": block.creds_file,
            "nkey_seed_file": block.nkey_seed_file,
            "user": block.user,
            "password_file": block.password_file,
            "token_file": None if own else bus.token_file,
        }
    )


class PlannerSteering:
    """``steering`` for the page; `run` keeps its connection. Raises UsageError as `steer_tokens`."""

    def __init__(self, settings: Settings, block: SteeringSettings) -> None:
        self._bus: Bus = unopened(operator_login(settings.bus, block))
        self.steering = Steering(self._bus, steer_tokens(block), settings.dashboard.host_names)
        log_commands()

    async def run(self) -> None:
        """Connect, and stay so until cancelled. A login that the bus refuses is logged, and stops nothing else."""
        try:
            await self._bus.ready()
            await asyncio.Event().wait()
        finally:
            await self._bus.close()
