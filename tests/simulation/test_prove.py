"""The proof by simulation: it holds over fresh seeds, every fault occurs, and it can fail."""

from __future__ import annotations

import json
import random

import pytest

from deploy.cli.main import main
from deploy.fault_simulation.campaign import EPISODE, Tally, reproduction, runs_of
from deploy.fault_simulation.checker import Budget, IssuedCommand
from deploy.fault_simulation.mutations import EVERY_MUTATION, HOLD_MUTATIONS, WORKERS_MUTATIONS
from deploy.fault_simulation.proof_run import Outcome, ProofRun, prove
from deploy.fault_simulation.scenario import ALL_FAULTS
from deploy.fault_simulation.shrink import shrunk
from planner.domain.units import Milliwatts

MUST_OCCUR = (
    "budget cut",
    "driver reset",
    "foreign writer",
    "partition longer than the lease",
    "planner fail-over",
    "leader deposed",
    "batch fenced",
    "agent crash",
    "lease ran out",
    "message lost",
    "message doubled",
    "message late",
    "node removed by command",
    "fixed caps wanted",
    "any caps wanted",
    "scaling decision",
    "replica started",
    "replica ended",
)


def held(run: ProofRun) -> Outcome:
    outcome = prove(run)
    assert outcome.failure is None, f"{outcome.failure}; reproduce: {reproduction(run)}"
    return outcome


def prove_seeds(seeds: list[str], events: int) -> Tally:
    tally = Tally()
    for run in (run for seed in seeds for run in runs_of(seed, events, None, frozenset(), None)):
        tally.add(held(run))
    return tally


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param("20261126", marks=pytest.mark.long),
        pytest.param("fresh", marks=pytest.mark.nightly),  # what it finds is news about the product, not about a change
    ],
)
def test_the_promise_holds_until_everything_has_happened(seed: str) -> None:
    if seed == "fresh":
        seed = str(random.SystemRandom().randrange(1, 10**9))
    tally, wanted = Tally(), (*MUST_OCCUR, *(fault.replace("_", " ") for fault in ALL_FAULTS))
    # Each world draws what can go wrong in it; three of four have a steady budget. So go on until all has happened:
    # that no cut was seen in 200 worlds is not chance any more.
    for run in runs_of(seed, 200 * EPISODE, None, frozenset(), None):
        tally.add(held(run))
        missing = [kind for kind in wanted if not tally.counts[kind]]
        if tally.events >= 200_000 and not missing and tally.over_s:
            break
    assert tally.events >= 200_000
    assert not missing, f"seed {seed}: never happened: {missing}"
    assert tally.over_s, "cuts were never above the budget for a moment: the checker was not put to the test"


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_the_promise_holds_over_ten_seeds_of_a_million_events() -> None:
    assert prove_seeds([str(seed) for seed in range(1, 11)], 1_000_000).events == 10_000_000


@pytest.mark.parametrize("mutation", sorted(EVERY_MUTATION))
def test_a_broken_product_is_caught_within_a_hundred_thousand_events(mutation: str) -> None:
    # A world whose budget covers workers only, for the fault that can show only there.
    seed = "1.26" if mutation in WORKERS_MUTATIONS else "1"
    by = {"liveness"} if mutation in HOLD_MUTATIONS else {"rise", "comply"}
    for run in runs_of(seed, 10_000 if "." in seed else 100_000, mutation, frozenset(), None):
        outcome = prove(run)
        # What calm weather leaves undone is found on the way; the hardware's sum must show the fault, too.
        if outcome.failure is not None and (outcome.failure.rule != "liveness" or by == {"liveness"}):
            assert outcome.failure.rule in by, "seen by the hardware's sum, not by the ledger itself"
            return
    pytest.fail(f"{mutation} went unseen")


def test_a_run_is_the_same_run_again() -> None:
    first, second = prove(ProofRun("11.2", 3000)), prove(ProofRun("11.2", 3000))
    assert (first.counts, first.virtual_s, first.statistics) == (second.counts, second.virtual_s, second.statistics)


def test_a_failing_run_shrinks_to_a_smaller_failing_one() -> None:
    found = next(o for o in map(prove, runs_of("3", 100_000, "default-on-expiry", frozenset(), None)) if o.failure)
    small = shrunk(found)
    assert small.failure is not None
    assert small.events <= found.events
    assert len(small.struck) <= len(found.struck)
    assert prove(small.run).failure == small.failure, "the line that is printed reproduces it"


def test_the_command_prints_one_object_and_fails_on_a_broken_promise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--events", "20000", "--seed", "4", "--json", "--jobs", "1"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert held["holds"] is True
    assert held["events"] == 20_000
    arguments = ["prove", "--events", "100000", "--seed", "3", "--mutate", "default-on-expiry", "--json", "--jobs", "1"]
    assert main(arguments) == 1
    broken = json.loads(capsys.readouterr().out)
    line = broken["failure"]["reproduce"].split()
    assert line[:2] == ["wattscale", "prove"]
    assert main([*line[1:], "--json", "--no-shrink"]) == 1
    again = json.loads(capsys.readouterr().out)
    assert again["failure"]["sentence"] == broken["failure"]["sentence"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--without", "moon_phase"], "moon_phase"),
        (["--seed", "x"], "--seed"),
        (["--seed", "1.2", "--seeds", "3"], "--seeds"),
        (["--only", "a"], "--only"),
        (["--events", "0"], "--events"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert word in captured.err
    assert captured.err.count("\n") == 1


def test_the_checker_knows_ramps_ends_and_what_was_commanded_when() -> None:
    budget = Budget(1000)
    budget.add(IssuedCommand(Milliwatts(600), 10.0, None, 20.0, 5.0))
    budget.add(IssuedCommand(Milliwatts(300), 20.0, 25.0, 0.0, 22.0))
    assert [budget.at_mw(t) for t in (0.0, 10.0, 20.0, 21.9, 22.0, 25.0, 30.0)] == [1000, 1000, 800, 762, 300, 700, 600]
    assert budget.largest_mw(21.0, 40.0) == 780
    assert EPISODE >= 1000
