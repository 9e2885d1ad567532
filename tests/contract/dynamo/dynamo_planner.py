"""Dynamo's own coordinator, unmodified, as its planner uses it; started with the interpreter of its environment.

    python dynamo_planner.py NAMESPACE

Each line of the input is one call: ``PREFILL DECODE`` publishes a decision, ``ready`` asks for its completion. Prints
what the coordinator knows after it: id, prefill, decode, and whether it is ready.
"""

from __future__ import annotations

import asyncio
import sys

from dynamo._core import DistributedRuntime, VirtualConnectorCoordinator


async def main(namespace: str) -> None:
    """Answer each line, until the input ends."""
    loop = asyncio.get_running_loop()
    runtime = DistributedRuntime(loop, "etcd", "tcp")
    coordinator = VirtualConnectorCoordinator(runtime, namespace, 1, 1800, 5)
    await coordinator.async_init()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if line.strip() != "ready":
            await coordinator.update_scaling_decision(*map(int, line.split()))
        state = coordinator.read_state()
        counts = state.num_prefill_workers, state.num_decode_workers
        print(state.decision_id, *counts, int(await coordinator.is_scaling_ready()), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
