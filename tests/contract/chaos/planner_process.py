"""A chaos planner as a process of its own, to be stopped and continued: ``planner_process.py URL NAME SEED``.

Writes a line of JSON for each batch that the server confirmed as stored.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.contract.bus import connected
from tests.contract.chaos.actors import ChaosPlanner
from tests.contract.chaos.history import History


class PrintingPlanner(list[tuple[str, str, int]]):
    """Says what is noted."""

    def append(self, noted: tuple[str, str, int]) -> None:
        print(json.dumps(noted), flush=True)


async def main() -> None:
    url, name, seed, *nodes = sys.argv[1:]
    async with connected(url, name) as bus:
        await ChaosPlanner(bus, name, nodes, History(acknowledged=PrintingPlanner()), int(seed)).run()


asyncio.run(main())
