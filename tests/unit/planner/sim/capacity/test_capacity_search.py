"""The search for GPUs and watts: what it measures, the frontier of the measured points, the answer, the plot."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.sim.capacity.capacity_answer import capacity_answer, in_words
from planner.sim.capacity.capacity_plot import capacity_svg
from planner.sim.capacity.capacity_search import CapacitySpace, search
from planner.sim.capacity.frontier import CapacityPoint, best_within, pareto_frontier, smallest_good

SPACE = CapacitySpace(tuple(range(2, 41)), 200.0, 700.0, 8000.0)
POINTS = st.lists(
    st.builds(
        CapacityPoint, st.integers(2, 9), st.integers(4, 30).map(lambda n: 100 * n), st.integers(0, 8).map(float)
    ),
    min_size=1,
    max_size=40,
)


class ProportionalLoad:
    """A load that is served in full by so many GPUs and watts, and in proportion below; remembers what was measured."""

    def __init__(self, gpus: int, watts: int) -> None:
        self.needs = (gpus, watts)
        self.runs: list[tuple[int, int]] = []

    def measure(self, gpus: int, budgets_watts: Sequence[int]) -> list[CapacityPoint]:
        self.runs += [(gpus, watts) for watts in budgets_watts]
        return [CapacityPoint(gpus, watts, self.share(gpus, watts)) for watts in budgets_watts]

    def share(self, gpus: int, watts: int) -> float:
        return min(1.0, gpus / self.needs[0], watts / self.needs[1])


@given(points=POINTS)
def test_more_gpus_or_watts_never_make_the_frontier_worse(points: list[CapacityPoint]) -> None:
    frontier = pareto_frontier(points)
    for gpus, watts in itertools.product(range(2, 10), range(400, 3100, 300)):
        here = best_within(frontier, gpus, watts)
        assert (here and here.good_share) == ((best := best_within(points, gpus, watts)) and best.good_share)
        for more in (best_within(frontier, gpus + 1, watts), best_within(frontier, gpus, watts + 300)):
            assert here is None or (more is not None and more.good_share >= here.good_share)


@given(points=POINTS)
def test_no_point_of_the_frontier_is_dominated(points: list[CapacityPoint]) -> None:
    for one, other in itertools.permutations(pareto_frontier(points), 2):
        assert not (other.gpus <= one.gpus and other.watts <= one.watts and other.good_share >= one.good_share)


@settings(max_examples=60)
@given(gpus=st.integers(2, 40), watts=st.integers(400, 8000), first=st.integers(1, 60), promise=st.floats(0.5, 1.0))
def test_the_fewest_gpus_are_found_from_anywhere(gpus: int, watts: int, first: int, promise: float) -> None:
    load = ProportionalLoad(gpus, watts)
    points = search(SPACE, promise, 200, load.measure, first)
    keeping = [n for n in SPACE.counts if load.share(n, SPACE.watts(n, 15)) >= promise]
    found = smallest_good(points, promise)
    assert (found and found.gpus) == (keeping[0] if keeping else None)
    assert len(load.runs) == len(set(load.runs)) == len(points), "nothing is measured twice"
    assert all(n * 200 <= w <= min(8000, n * 700) for n, w in load.runs)
    if found is not None:
        lower = [level for level in range(16) if SPACE.watts(found.gpus, level) < found.watts]
        assert all(load.share(found.gpus, SPACE.watts(found.gpus, level)) < promise for level in lower)
        assert capacity_answer(points, promise, SPACE.counts).exact


@pytest.mark.parametrize("most", [1, 2, 5, 11])
def test_no_more_runs_than_allowed(most: int) -> None:
    load = ProportionalLoad(17, 6000)
    points = search(SPACE, 0.95, most, load.measure, 3)
    assert len(load.runs) == len(points) == most


def test_the_answer_names_what_one_gpu_fewer_gives() -> None:
    points = search(SPACE, 1.0, 200, ProportionalLoad(10, 5000).measure, 12)
    sentences = in_words(capacity_answer(points, 1.0, SPACE.counts), 8000)
    assert sentences[0] == "10 GPUs and 5000 W serve this load with 100.00 % good; one GPU fewer gives 90.00 %."


def test_fewer_watts_on_more_gpus_are_named() -> None:
    points = [CapacityPoint(4, 2800, 0.99), CapacityPoint(5, 2000, 0.98), CapacityPoint(3, 2100, 0.5)]
    first, second = in_words(capacity_answer(points, 0.95, (2, 3, 4, 5)), 8000)
    assert first == "4 GPUs and 2800 W serve this load with 99.00 % good; one GPU fewer gives 50.00 %."
    assert second == "The fewest watts are 2000 W, with 5 GPUs and 98.00 % good."


def test_a_size_that_was_not_measured_is_not_passed_off_as_one_gpu_fewer() -> None:
    answer = capacity_answer([CapacityPoint(8, 2800, 0.99), CapacityPoint(4, 2000, 0.3)], 0.95, range(2, 9))
    assert not answer.exact
    assert "4 GPUs and 2000 W give 30.00 %: more --points find the fewest" in in_words(answer, 8000)[0]


def test_workers_of_several_gpus_go_in_their_own_steps() -> None:
    answer = capacity_answer([CapacityPoint(12, 2800, 0.99), CapacityPoint(8, 2000, 0.3)], 0.95, (8, 12, 16))
    assert "; 4 GPUs fewer give 30.00 %." in in_words(answer, 8000)[0]
    smallest = capacity_answer([CapacityPoint(8, 2000, 0.96)], 0.95, (8, 12, 16))
    assert "; fewer GPUs hold no worker of each phase." in in_words(smallest, 8000)[0]


def test_a_promise_that_nothing_keeps_is_not_rounded_into_one() -> None:
    answer = capacity_answer([CapacityPoint(4, 2800, 0.94999)], 0.95, (2, 3, 4))
    (sentence,) = in_words(answer, 2800)
    assert sentence.startswith("Nothing measured within 2800 W serves 95 % of this load in time: the best are ")
    assert sentence.endswith("4 GPUs and 2800 W with 94.99 % good.")


def test_no_line_of_the_plot_falls_and_every_point_is_in_it() -> None:
    points = search(SPACE, 0.95, 40, ProportionalLoad(10, 5000).measure, 12)
    root = ElementTree.fromstring(capacity_svg('a "trace" <x>', points, 0.95))
    svg = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{svg}circle")) == len(points)
    lines = [path.attrib["d"][1:].split("L") for path in root.findall(f"{svg}path")]
    assert len(lines) == len({point.gpus for point in points})
    for line in lines:
        heights = [float(corner.split()[1]) for corner in line]
        assert heights == sorted(heights, reverse=True)
    assert all(0 <= float(text.attrib["y"]) <= 460 for text in root.iter(f"{svg}text"))
