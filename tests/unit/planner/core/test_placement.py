"""GPUs for new replicas: whole replicas on one node, the fullest node first, nothing that is held or broken."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.core import placement as placing
from planner.domain.ids import DeploymentId, GpuId, NodeId, PoolId
from planner.domain.observation import GpuObservation, NodeObservation

POOL = PoolId("decode")


def card(name: str, *, held: bool = False, healthy: bool = True) -> GpuObservation:
    holder = DeploymentId("d") if held else None
    return GpuObservation(
        gpu=GpuId(name),
        draw_mw=100_000,
        requested_mw=None,
        enforced_mw=200_000,
        default_mw=700_000,
        min_mw=200_000,
        max_mw=700_000,
        healthy=healthy,
        deployment=holder,
        pool=POOL if held else None,
    )


def node(name: str, states: list[str]) -> NodeObservation:
    cards = [card(f"{name}-{i}", held=s == "held", healthy=s != "broken") for i, s in enumerate(states)]
    return NodeObservation(NodeId(name), {c.gpu: c for c in cards})


racks = st.lists(st.lists(st.sampled_from(["free", "held", "broken"]), min_size=1, max_size=8), max_size=12)


@settings(max_examples=200, deadline=None)
@given(racks, st.sampled_from([1, 2, 4, 8]), st.integers(0, 30))
def test_as_many_as_fit_each_on_one_node_of_free_healthy_gpus(rows: list[list[str]], size: int, replicas: int) -> None:
    nodes = [node(f"n{i}", states) for i, states in enumerate(rows)]
    chosen = placing.choose(placing.survey(nodes), POOL, size, replicas)
    room = sum(states.count("free") // size for states in rows)
    assert len(chosen) == min(replicas, room)
    taken = [gpu for placement in chosen for gpu in placement.gpus]
    assert len(set(taken)) == len(taken) == size * len(chosen)
    free = {c.gpu: n.node for n in nodes for c in n.gpus.values() if c.healthy and c.deployment is None}
    assert all(free[gpu] == placement.node for placement in chosen for gpu in placement.gpus)


def test_the_fullest_node_is_filled_first_so_that_whole_nodes_stay_free() -> None:
    nodes = [node("empty", ["free"] * 8), node("used", ["held"] * 5 + ["free"] * 3)]
    inventory = placing.survey(nodes)
    chosen = placing.choose(inventory, POOL, 1, 4)
    assert [p.node for p in chosen] == ["used", "used", "used", "empty"]
    assert len(inventory.without(chosen).free[NodeId("empty")]) == 7
    assert len(inventory.free[NodeId("empty")]) == 8, "an inventory is a value"


def test_a_choice_stands_until_somebody_takes_it() -> None:
    nodes = [node("a", ["free"] * 4)]
    first = placing.choose(placing.survey(nodes), POOL, 2, 2)
    inventory = placing.survey([node("a", ["held", "free", "free", "free"])])
    assert placing.keep(inventory, first, 2) == [first[1]]
    assert inventory.without([first[1]]).free[NodeId("a")] == [GpuId("a-1")]
