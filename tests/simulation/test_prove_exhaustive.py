"""The search of tiny worlds: it holds over its scopes, finds what is broken, and its canonical states are sound."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest

from deploy.cli.build.prove_exhaustive import EXTRA_MUTATIONS
from deploy.cli.main import main
from deploy.fault_simulation.exhaustive import checks, search
from deploy.fault_simulation.exhaustive.actions import carried_out, enabled
from deploy.fault_simulation.exhaustive.calm import beginning
from deploy.fault_simulation.exhaustive.canonical import key_of
from deploy.fault_simulation.exhaustive.model_state import ModelState
from deploy.fault_simulation.exhaustive.mutation_patches import EVERY, SHOWN_BY
from deploy.fault_simulation.exhaustive.run import Bounds, Checkpoint, CheckpointError, ExhaustiveSearch, SearchTally
from deploy.fault_simulation.exhaustive.scope import SearchScope
from deploy.fault_simulation.exhaustive.scopes import SCOPES
from deploy.fault_simulation.exhaustive.search import Remembered, steps
from deploy.fault_simulation.exhaustive.story import read, replay_story, written
from deploy.fault_simulation.mutations import MUTATIONS

PAGE = Path(checks.__file__).parent / "README.md"
GATE = [name for name, scope in SCOPES.items() if not scope.long]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("scope", GATE)
def test_a_small_scope_holds_to_its_end(scope: str) -> None:
    tally = ExhaustiveSearch(scope).run()
    assert not tally.sentence, f"{tally.sentence}: {' '.join(map(written, tally.story))}"
    assert tally.complete


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", sorted(SHOWN_BY))
def test_every_fault_put_in_on_purpose_is_found(mutation: str) -> None:
    tally = ExhaustiveSearch(SHOWN_BY[mutation], mutation=mutation, bounds=Bounds(depth=8)).run()
    assert tally.sentence, f"{mutation} went unseen in {tally.states} worlds"
    again = replay_story(SCOPES[SHOWN_BY[mutation]], mutation, tally.story)
    assert again.sentence == tally.sentence
    assert not replay_story(SCOPES[SHOWN_BY[mutation]], None, _common(mutation, tally.story)).sentence


def _common(mutation: str, story: tuple[tuple[str, int, int], ...]) -> list[tuple[str, int, int]]:
    """As much of a mutation's story as can happen to the product itself."""
    scope, kept = SCOPES[SHOWN_BY[mutation]], []
    world = beginning(scope)
    for action in story:
        if action not in set(enabled(scope, world)):
            break
        world = carried_out(scope, world, action)
        kept.append(action)
    return kept


def test_the_command_knows_every_fault() -> None:
    assert {*MUTATIONS, *EXTRA_MUTATIONS} == set(EVERY) == set(SHOWN_BY)


@pytest.mark.parametrize("scope", ["crash", "fail-over", "late-reports", "steady", "cut", "removal", "restore"])
def test_worlds_that_are_one_go_on_as_one(scope: str) -> None:
    """Of two different worlds with one key, whatever may happen to one may happen to the other, to one key again."""
    chosen = SCOPES[scope]
    begun = beginning(chosen)
    met, queue, pairs = {key_of(chosen, begun): begun}, [begun], 0
    while queue and pairs < 25:
        world = queue.pop(0)
        for action in enabled(chosen, world):
            after = carried_out(chosen, world, action)
            key = key_of(chosen, after)
            if key not in met:
                met[key] = after
                queue.append(after)
            elif met[key] != after:
                pairs += 1
                assert _futures(scope, after) == _futures(scope, met[key]), action
    assert pairs, "no two worlds were one: nothing was tested"


def _futures(scope: str, world: ModelState) -> list[int]:
    """The keys one step on; alike nodes may have changed places."""
    chosen = SCOPES[scope]
    return sorted(key_of(chosen, carried_out(chosen, world, action)) for action in enabled(chosen, world))


@pytest.mark.parametrize("scope", ["cut", "removal", "restore-fail-over", "late-reports"])
def test_what_a_search_remembers_is_what_it_would_compute(scope: str) -> None:
    chosen, queue, met = SCOPES[scope], [beginning(SCOPES[scope])], set()
    memory = Remembered(chosen)
    for _ in range(60):
        world = memory.shared(queue.pop(0))
        plain = {
            action: (key_of(chosen, after), checks.broken(chosen, world, after, action, partial(_charged, chosen)))
            for action in enabled(chosen, world)
            for after in (carried_out(chosen, world, action),)
        }
        for action, after, sentence in steps(chosen, world, memory):
            assert (memory.key(after), sentence) == plain[action], action
            if memory.key(after) not in met:
                met.add(memory.key(after))
                queue.append(after)


def _charged(scope: SearchScope, world: ModelState) -> str:
    sentences = [checks.node_charged(scope, world, n) for n in range(scope.nodes)]
    return next(filter(None, sentences), "")


def test_two_orders_under_way_to_a_leader_allow_what_it_knew_of() -> None:
    story = read("want:1 order:0 order:0 tick deliver:0:1 deliver:1:1")
    assert not replay_story(SCOPES["cut"], None, story).sentence


def test_the_page_names_every_scope_and_every_mutation_with_its_scope() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `")
    ]
    scopes = [name for row in rows if len(row) > 3 for name in re.findall(r"`([a-z-]+)`", row[0])]
    assert sorted(scopes) == sorted(SCOPES)
    mutations = {row[0].strip("`"): re.findall(r"`([a-z-]+)`", row[1]) for row in rows if len(row) == 3}
    assert set(mutations) == set(EVERY)
    assert {name: shown for name, shown in SHOWN_BY.items() if shown not in mutations[name]} == {}
    assert {scope for shown in mutations.values() for scope in shown} <= set(SCOPES)


def test_a_grant_above_the_default_stays_charged_over_an_old_copy() -> None:
    """At a default of 500 W, a copy is put back while the agent of n0 is dead at 700 W: n1 may not be given 500 W."""
    story = read(
        "put-back report:1 tick time:0 report:1 tick deliver:1:1 receive-answer:1:0 time:0 report:1 tick deliver:1:1"
    )
    assert not replay_story(SCOPES["restore-above-default"], None, story).sentence


def test_processes_and_interruptions_change_nothing(tmp_path: Path) -> None:
    whole = ExhaustiveSearch("steady", bounds=Bounds(depth=4)).run()
    twice = ExhaustiveSearch("steady", jobs=2, bounds=Bounds(depth=4)).run()
    part = ExhaustiveSearch("steady", bounds=Bounds(depth=2), checkpoint=Checkpoint(tmp_path)).run()
    assert part.cut == "depth 2"
    rest = ExhaustiveSearch("steady", jobs=2, bounds=Bounds(depth=4), checkpoint=Checkpoint(tmp_path)).run()
    again = ExhaustiveSearch("steady", bounds=Bounds(depth=4), checkpoint=Checkpoint(tmp_path)).run()
    counted = [(each.states, each.transitions, each.judged, each.depth) for each in (whole, twice, rest, again)]
    assert len(set(counted)) == 1, counted
    with pytest.raises(CheckpointError, match="a checkpoint of steady"):
        ExhaustiveSearch("cut", checkpoint=Checkpoint(tmp_path)).run()


def test_a_checkpoint_of_other_code_proves_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ExhaustiveSearch("steady", bounds=Bounds(depth=2), checkpoint=Checkpoint(tmp_path)).run()
    page = json.loads((tmp_path / "search.json").read_text())
    (tmp_path / "search.json").write_text(json.dumps({**page, "code": "of last week", "states": 10**9}))
    (part,) = page["parts"]
    (tmp_path / part).write_bytes(b"worlds that this code cannot read")
    anew = ExhaustiveSearch("steady", bounds=Bounds(depth=3), checkpoint=Checkpoint(tmp_path)).run()
    assert _counted(anew) == _counted(ExhaustiveSearch("steady", bounds=Bounds(depth=3)).run())
    assert "the code has changed since" in caplog.text


def test_an_interrupted_last_depth_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped within the last depth, then run to its end, and then deeper, as if it had been searched at once."""
    monkeypatch.setattr(search, "CHUNK", 20)
    tiny, folder = Bounds(depth=4, memory_bytes=1), Checkpoint(tmp_path)
    stopped = ExhaustiveSearch("climb", bounds=tiny, checkpoint=folder).run()
    while not (stopped.last and stopped.blocks_left):
        stopped = ExhaustiveSearch("climb", bounds=tiny, checkpoint=folder).run()
    assert stopped.depth == 3
    assert not stopped.complete
    for depth in (4, 5):
        resumed = ExhaustiveSearch("climb", bounds=Bounds(depth=depth), checkpoint=folder).run()
        assert _counted(resumed) == _counted(ExhaustiveSearch("climb", bounds=Bounds(depth=depth)).run())


def _counted(tally: SearchTally) -> tuple[int, ...]:
    return tally.states, tally.transitions, tally.judged, tally.depth


def test_memory_and_time_are_bounds() -> None:
    assert ExhaustiveSearch("crash", bounds=Bounds(memory_bytes=1)).run().cut.endswith("GiB of memory")
    assert ExhaustiveSearch("crash", bounds=Bounds(seconds=0.01)).run().cut == "0.01 s"


def test_a_broken_promise_prints_its_story_and_a_line_that_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prove", "--exhaustive", "annotation", "--mutate", "answered-forgotten", "--jobs", "1"]
    assert main(words) == 1
    text = capsys.readouterr().out
    assert "an annotation bounds n0 to 300 W" in text
    line = next(each for each in text.splitlines() if each.startswith("reproduce: "))
    head, story = line.removeprefix("reproduce: wattscale ").split(" --story ")
    assert main([*head.split(), "--story", story.strip("'")]) == 1
    assert "BROKEN: the agent of n0 may yet raise" in capsys.readouterr().out
    assert main([*words, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["holds"] is False
    assert document["scopes"][0]["reproduce"] == line.removeprefix("reproduce: ")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--exhaustive", "moon"], "moon"),
        (["--exhaustive", "crash", "--depth", "0"], "--depth"),
        (["--exhaustive", "crash", "--story", "tick:x"], "tick:x"),
        (["--exhaustive", "crash", "--story", "join:0"], "join:0"),
        (["--exhaustive", "gate", "--story", "tick"], "--story"),
        (["--mutate", "settle-0"], "--exhaustive"),
        (["--checkpoint", "somewhere"], "--seed"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert word in captured.err
    assert captured.err.count("\n") == 1


def test_a_step_is_read_as_it_is_written() -> None:
    story = [("tick", -1, -1), ("deliver", 0, 2), ("want", -1, 1), ("cut-off-1", 0, 0), ("restart", 1, -1)]
    assert read(" ".join(map(written, story))) == story


def test_a_campaign_goes_on_where_it_was_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prove", "--events", "20000", "--seed", "4", "--json", "--jobs", "1", "--checkpoint", str(tmp_path)]
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)
    page = json.loads((tmp_path / "campaign.json").read_text())
    assert (page["worlds"], page["events"]) == (2, 20_000)
    assert main(words) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["counts"], again["worlds"]) == (first["counts"], 2)
    assert main([*words[:2], "30000", *words[3:]]) == 2
    assert "another campaign" in capsys.readouterr().err
