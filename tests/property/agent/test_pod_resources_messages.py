"""The hand-written reader of the kubelet's answers against an encoder of our own, and against any bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.adapters.pod_resources.kubelet import assignments
from agent.adapters.pod_resources.protobuf import MalformedMessageError
from agent.core.devices import Assignment, PodRef
from tests.doubles.kubelet import answer_of

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(
    st.dictionaries(
        st.tuples(names, names), st.dictionaries(names, st.lists(names, max_size=3), max_size=3), max_size=4
    )
)
def test_what_is_written_is_read_back(assigned: dict[tuple[str, str], dict[str, list[str]]]) -> None:
    expected = [
        Assignment(PodRef(namespace, pod), device, "engine")
        for (namespace, pod), resources in assigned.items()
        for devices in resources.values()
        for device in devices
    ]
    assert assignments(answer_of(assigned)) == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        assert isinstance(assignments(data), list)
    except MalformedMessageError:
        pass  # The only way out.
