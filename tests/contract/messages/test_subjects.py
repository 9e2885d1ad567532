"""Names become subject tokens and come back; a name that does not fit is refused when it is first used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas.errors import BadNameError
from bus_schemas.streams import stream_of, stream_specs
from bus_schemas.subjects import ParsedSubject, Subjects, decode_name, encode_name, power_consumer

KUBERNETES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?", fullmatch=True)
PER_NAME = ["decision_scaling", "decision_power", "ack_scaling", "ack_power", "telemetry_node", "telemetry_plan"]
PER_NAME += ["control_budget", "control_deployment", "control_node", "claim_deployment", "claim_target"]


@given(KUBERNETES)
def test_kubernetes_names_map_back(name: str) -> None:
    token = encode_name(name)
    assert "." not in token
    assert decode_name(token) == name


@given(KUBERNETES, st.sampled_from(PER_NAME))
def test_every_subject_parses_to_what_made_it(name: str, method: str) -> None:
    subjects = Subjects()
    subject = getattr(subjects, method)(name)
    kind, what = method.split("_")
    assert subjects.parse(subject) == ParsedSubject(kind, what, name)
    assert subject.count(".") == 4


@pytest.mark.parametrize("name", ["", "a b", "a*", ">", "a\tb", "a\r\nPUB x", "ä", "a_b", "x" * 254, "\x00"])
def test_what_no_token_can_carry_is_refused_with_the_byte_named(name: str) -> None:
    with pytest.raises(BadNameError) as caught:
        Subjects().decision_power(name)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=80))
def test_any_text_is_refused_or_maps_back(name: str) -> None:
    try:
        token = encode_name(name)
    except BadNameError:
        return
    assert decode_name(token) == name
    assert not set(token) & set(" .*>\t\r\n")


@given(st.text(max_size=80))
def test_parse_answers_whatever_it_is_asked(text: str) -> None:
    subjects = Subjects()
    found = subjects.parse(text)
    assert found is None or found.kind in ("deadletter", "lease") or found.who


@pytest.mark.parametrize(
    "subject",
    [
        "wattscale.v2.decision.power.n",
        "wattscale.v1.decision.power",
        "wattscale.v1.decision.power.a.b",
        "wattscale.v1.decision.node.a",
        "wattscale.v1.lease.planner.x",
        "wattscale.v1.deadletter.S",
        "other.v1.decision.power.n",
        "wattscale.v1.decision..n",
    ],
)
def test_foreign_subjects_are_none_of_ours(subject: str) -> None:
    assert Subjects().parse(subject) is None


def test_the_lease_and_dead_letters_parse() -> None:
    subjects = Subjects("acme.site-1")
    assert subjects.parse(subjects.lease()) == ParsedSubject("lease", "planner", "")
    letter = subjects.deadletter("WATTSCALE_DECISIONS", power_consumer("node-7.example"))
    assert letter == "acme.site-1.v1.deadletter.WATTSCALE_DECISIONS.power-node-7_example"
    assert subjects.parse(letter) == ParsedSubject("deadletter", "WATTSCALE_DECISIONS", "power-node-7_example")


@pytest.mark.parametrize("prefix", ["", "a b", "a..b", "a.*", "a.>", ".a", "a_b"])
def test_prefixes_that_are_none_are_refused(prefix: str) -> None:
    with pytest.raises(BadNameError):
        Subjects(prefix)


def test_the_copy_of_what_is_stored_lies_outside_every_stream() -> None:
    subjects = Subjects()
    copy = subjects.stored(subjects.decision_power("n"))
    assert copy == "wattscale.stored.v1.decision.power.n"
    with pytest.raises(BadNameError):
        stream_of(subjects, copy)


def test_wildcards_of_no_kind_are_refused() -> None:
    with pytest.raises(BadNameError):
        Subjects().all_of("decisions")


def test_every_stream_says_how_many_consumers_it_may_have() -> None:
    for spec in stream_specs(Subjects()):
        assert spec.max_consumers > 5000


def test_every_kind_is_stored_in_exactly_one_stream() -> None:
    subjects = Subjects()
    held = [subject for spec in stream_specs(subjects) for subject in spec.subjects]
    kinds = [
        ("decision",),
        ("lease",),
        ("ack",),
        ("claim",),
        ("control",),
        ("telemetry", "node"),
        ("telemetry", "plan"),
    ]
    assert sorted(held) == sorted(subjects.all_of(*kind) for kind in [*kinds, ("deadletter",)])
