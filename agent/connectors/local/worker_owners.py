"""Whose work runs on a machine's GPUs, by the record of the connector that started the workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.connectors.local.worker_records import StateFolderError, WorkerRecords
from agent.core.scaling.worker_lifecycle import WorkerStage
from agent.ports import GpuOwner, OwnersUnknownError
from agent.runtime.boot import boot_id


class WorkerOwners:
    """GpuOwners of a machine whose workers a local connector keeps, from its state folder.

    ``role_of``: the role of a pool's workers.
    """

    def __init__(self, state_folder: Path, deployment: str, role_of: Callable[[str], str]) -> None:
        self._records = WorkerRecords(state_folder)
        self._deployment = deployment
        self._role_of = role_of
        self._boot = boot_id()

    async def owners(self) -> Mapping[str, GpuOwner]:
        """Owners by GPU; a worker holds its GPUs until its process is gone. Raises OwnersUnknownError."""
        try:
            book = await asyncio.to_thread(self._records.read, self._boot)
        except StateFolderError as error:
            raise OwnersUnknownError(str(error)) from error
        return {
            gpu: GpuOwner(
                deployment=self._deployment,
                pool=one.pool,
                role=self._role_of(one.pool),
                worker=one.worker,
                pod=one.worker,
                terminating=one.killed or one.stage is WorkerStage.DRAINING,
            )
            for one in book.workers
            for gpu in one.gpus
        }
