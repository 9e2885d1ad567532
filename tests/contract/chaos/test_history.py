"""The checker finds each kind of broken promise: a chaos run that passes means something."""

from __future__ import annotations

import pytest

from bus_schemas.errors import BusError
from bus_schemas.jetstream.connect import Bus
from tests.contract.bus import bench, power
from tests.contract.chaos.history import History, check


async def put(bus: Bus, number: int, *, epoch: int = 1, node: str = "a") -> None:
    await bus.nc.request(bus.subjects.decision_power(node), power(node, number, epoch=epoch).model_dump_json().encode())


@pytest.mark.parametrize(
    ("stored", "acknowledged", "carried", "said"),
    [
        ([(0, 1), (1, 1)], [0, 1, 2], [], "lost"),
        ([(0, 1), (2, 1)], [], [], "ids of"),
        ([(0, 1), (1, 1), (1, 1)], [], [], "ids of"),
        ([(0, 2), (1, 1)], [], [], "epoch falls"),
        ([(0, 1), (1, 1)], [], [0, 1, 1], "twice"),
        ([(0, 1), (1, 1)], [], [1, 0], "went back"),
        ([(0, 1)], [], [0, 5], "never decided"),
        ([(0, 1), (1, 3)], [0, 1], [0, 1], ""),
    ],
)
async def test_each_broken_promise_is_found(
    stored: list[tuple[int, int]], acknowledged: list[int], carried: list[int], said: str
) -> None:
    async with bench() as (_, bus):
        for number, epoch in stored:
            await put(bus, number, epoch=epoch)
        history = History(acknowledged=[(bus.subjects.decision_power("a"), "one", number) for number in acknowledged])
        history.carried["a"] = [("one", number) for number in carried]
        if not said:
            await check(bus, history)
            return
        with pytest.raises((AssertionError, BusError), match=said):
            await check(bus, history)
