"""Dynamo's own client, unmodified, as an orchestrator runs it; started with the interpreter of its environment.

    python virtual_client.py NAMESPACE

Prints each decision that it completed: id, prefill and decode workers.
"""

from __future__ import annotations

import asyncio
import sys

from dynamo._core import DistributedRuntime, VirtualConnectorClient


async def main(namespace: str) -> None:
    """Wait, get, complete, until killed."""
    runtime = DistributedRuntime(asyncio.get_running_loop(), "etcd", "tcp")
    client = VirtualConnectorClient(runtime, namespace)
    while True:
        await client.wait()
        decision = await client.get()
        await client.complete(decision)
        print(decision.decision_id, decision.num_prefill_workers, decision.num_decode_workers, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
