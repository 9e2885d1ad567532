"""What the page shows: the values of `status` and `explain`, in parts that are sent again only when they changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bus_schemas import codec, v1
from deploy.dashboard.document import Document
from deploy.dashboard.feed import as_data
from deploy.views.explain import power_lines
from deploy.views.would_change import would_change
from tests.doubles.seen_site import CHAT, SITE, decision, gpu, lease, power, record, report, scaled, site

BUS = {"connected": True, "read": True}


def document(*messages: v1.Message) -> Document:
    made = Document()
    for message in (lease(), *(messages or site())):
        made.add(message, is_new=False)
    return made


def parts(made: Document, now: datetime | None = None) -> dict[str, Any]:
    made.changes(now or datetime.now(UTC), bus=BUS)
    return made.parts


def test_the_four_standing_answers_are_in_the_words_of_explain() -> None:
    made = document()
    answers = parts(made)["answers"]
    newest = made.picture.deployments[CHAT].record
    assert newest is not None
    assert answers["budget"]["lines"] == [f"{SITE}: yes; {next(power_lines(newest))}"]
    assert answers["why"]["lines"][1] == f"{CHAT} decode: 6; power_budget: 10000 W are all that GPUs may draw"
    assert answers["change"]["lines"] == [f"{CHAT} {line}" for line in would_change(newest)]
    assert answers["odd"]["lines"] == ["none of 16 GPUs"]
    assert all(answer["well"] for answer in answers.values())


def test_caps_above_the_budget_are_a_no_that_asks_for_attention() -> None:
    made = document(power("n", 0, budget_watts=3000.0), report("n"))
    answer = parts(made)["answers"]["budget"]
    assert answer["lines"] == [f"{SITE}: NO; budget 3000 W, caps in force 3200 W, drawn 3120 W"]
    assert not answer["well"]
    assert any("above its budget" in line for line in made.parts["overview"]["problems"])


def test_an_odd_gpu_is_named_and_framed() -> None:
    made = document(report("n", *(gpu("n", i, draw_watts=500.0 if i == 3 else 390.0) for i in range(8))))
    shown = parts(made)
    assert shown["answers"]["odd"]["lines"] == ["n GPU 3: draws 500 W, above its cap of 400 W"]
    assert shown["odd"] == {"GPU-n-3": "draws 500 W, above its cap of 400 W"}


def test_a_deployment_states_its_pools_and_its_explanation() -> None:
    made = document(record(1), decision(1, 8), scaled(1, 6, pools={"decode": v1.PoolProgress(ready=6, wanted=8)}))
    made.add(report("n", gpu("n", 0, terminating=True, pod="old"), gpu("n", 1, terminating=True, pod="old")))
    part = parts(made)[f"deployment/{CHAT}"]
    decode = next(pool for pool in part["pools"] if pool["name"] == "decode")
    counts = {key: decode[key] for key in ("desired", "granted", "ready", "starting", "draining")}
    assert counts == {"desired": 9, "granted": 8, "ready": 6, "starting": 2, "draining": 1}
    assert decode["waits_for_watts"] == ["10000 W are all that GPUs may draw"]
    assert (part["ttft"]["missed"], part["itl"]["missed"]) == (False, True)


def test_a_deployment_states_its_class_of_service_where_one_is_set() -> None:
    assert "class" not in parts(document(record(1)))[f"deployment/{CHAT}"]
    classed = record(1).model_copy(update={"service_class": "interactive"})
    assert parts(document(classed))[f"deployment/{CHAT}"]["class"] == "interactive"


def test_before_the_streams_are_read_no_part_is_about_the_whole_site() -> None:
    made, now = Document(), datetime.now(UTC)
    unread = {**BUS, "read": False}
    assert made.changes(now, bus=unread).parts == {"overview": {"bus": unread}}
    for message in (lease(), *site()):
        made.add(message, is_new=False)
    assert {"answers", "odd", f"site/{SITE}"}.isdisjoint(made.changes(now, bus=unread).parts)
    made.changes(now, bus=BUS)
    assert made.parts["overview"]["leader"] == "planner-a"
    assert {"answers", "odd", f"site/{SITE}"} <= set(made.parts)


def test_only_what_changed_is_sent_again() -> None:
    made, now = document(), datetime.now(UTC)
    made.changes(now, bus=BUS)
    assert not made.changes(now, bus=BUS)
    made.add(report("node-1", *(gpu("node-1", i, draw_watts=380.0) for i in range(8)), at=now))
    changed = made.changes(now, bus=BUS)
    assert set(changed.parts) == {"draw/node-1", f"site/{SITE}"}
    made.add(report("node-1", *(gpu("node-1", i, enforced_watts=390.0) for i in range(8)), at=now))
    assert "node/node-1" in made.changes(now, bus=BUS).parts


def test_a_node_without_reports_is_silent_after_its_term() -> None:
    made, now = document(), datetime.now(UTC)
    assert parts(made, now)["overview"]["silent"] == []
    assert parts(made, now + timedelta(seconds=16))["overview"]["silent"] == ["node-0", "node-1"]


def test_new_messages_are_in_the_timeline_and_the_charts_and_old_ones_are_not() -> None:
    made = document()
    assert not made.changes(datetime.now(UTC), bus=BUS).events
    made.add(decision(2, 7))
    made.add(record(2))
    changed = made.changes(datetime.now(UTC), bus=BUS)
    assert [event.text for event in changed.events] == [f"{CHAT} scaling #2: prefill=2 decode=7; as the load needs"]
    assert set(changed.points) == {CHAT, f"site/{SITE}"}


def test_announced_budgets_are_shown_until_they_are_over() -> None:
    made, now = document(), datetime.now(UTC)
    later = v1.BudgetChange(
        time=now, site=SITE, budget_watts=8000.0, effective_from=now + timedelta(minutes=5), ramp_s=60.0,
        effective_until=now + timedelta(minutes=10), issued_by="grid",
    )  # fmt: skip
    made.add(later)
    (command,) = parts(made, now)[f"site/{SITE}"]["commands"]
    assert (command["watts"], command["ramp_s"], command["state"]) == (8000.0, 60.0, "begins later")
    assert command["until"] - command["from"] == 300_000
    assert parts(made, now + timedelta(minutes=11))[f"site/{SITE}"]["commands"] == []


def test_a_node_that_has_not_applied_its_decision_waits() -> None:
    made = document(power("n", 4), report("n", applied=3))
    part = parts(made)["lease/n"]
    assert (part["decision"], part["applied"], part["waits"], part["lease_s"]) == (4, 3, True, 30.0)
    made.add(report("n", applied=4))
    assert not parts(made)["lease/n"]["waits"]


def test_a_lease_whose_end_lowers_no_cap_does_not_lapse() -> None:
    assert parts(document(power("n", 4)))["lease/n"]["lapses"]
    resting = power("n", 4, caps=(v1.GpuCap(gpu="GPU-n-0", cap_watts=200.0, fallback_watts=200.0),))
    assert not parts(document(resting))["lease/n"]["lapses"]


def test_a_renewal_sends_the_lease_and_not_the_cards_again() -> None:
    made, now = document(), datetime.now(UTC)
    made.changes(now, bus=BUS)
    made.add(power("node-1", 1, now))
    assert set(made.changes(now, bus=BUS).parts) - {"overview"} == {"lease/node-1"}


def test_decisions_as_they_were_published_show_the_same_as_those_read_back_from_the_bus() -> None:
    published: list[v1.PowerDecision | v1.ScalingDecision] = [power("n", 1), decision(2, 7), power("n", 2, caps=())]
    own, read_back = Document(), Document()
    for known in (lease(), report("n")):
        for made in (own, read_back):
            made.add(known, is_new=False)
    for one in published:
        for made, form in ((own, one), (read_back, codec.decode(codec.encode(one)))):
            made.add(form)
    now = datetime.now(UTC)
    shown, wanted = own.changes(now, bus=BUS), read_back.changes(now, bus=BUS)
    assert shown.events
    assert as_data(shown) == as_data(wanted)


def test_what_was_added_of_a_numbering_is_known_up_to_its_newest() -> None:
    made = document(power("n", 5), decision(5, 7))
    assert [made.knows(power("n", number)) for number in (4, 5, 6)] == [True, True, False]
    assert [made.knows(decision(number, 7)) for number in (4, 5, 6)] == [True, True, False]
    assert not made.knows(power("n", 4, incarnation="another"))
    assert not made.knows(power("other", 4))


def test_a_node_that_was_removed_goes_and_a_sign_of_life_brings_it_back() -> None:
    made, now = document(), datetime.now(UTC)
    sent = {"node/node-1", "lease/node-1", "draw/node-1"}
    assert sent <= set(parts(made))
    made.add(v1.NodeControl(time=now + timedelta(seconds=1), node="node-1", action="remove"))
    assert made.changes(now, bus=BUS).parts.items() >= dict.fromkeys(sent).items()
    assert not sent & made.parts.keys()
    # The next page, and what was still on its way.
    made.add(report("node-1", at=now))
    made.add(power("node-1", 5, now + timedelta(seconds=2)))
    assert not sent & made.changes(now, bus=BUS).parts.keys()
    made.add(report("node-1", at=now + timedelta(seconds=3)))
    back = made.changes(now, bus=BUS).parts
    assert sent <= back.keys()
    assert back["lease/node-1"]["decision"] == 5


def test_a_node_that_was_restored_is_there_again_with_what_was_known() -> None:
    made, now = document(), datetime.now(UTC) + timedelta(seconds=1)
    made.add(v1.NodeControl(time=now, node="node-1", action="remove"))
    assert "node/node-1" not in parts(made)
    made.add(v1.NodeControl(time=now, node="node-1", action="restore"))
    assert len(parts(made)["node/node-1"]["gpus"]) == 8


def test_names_that_would_forge_a_line_are_shown_as_numbers() -> None:
    made = document(report("n", gpu("n", 0, pod="a\x1b[31m\nb")))
    assert parts(made)["node/n"]["gpus"][0][8] == "a\\x1b[31m\\x0ab"
