"""What annotations mean for GPUs: every rule an operator relies on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.devices import PodRef
from agent.core.ownership import Pod
from agent.core.pod_limits import ANNOTATION, GpuLimits, NoteKind, plan

GPUS = {"g0": GpuLimits(200_000, 700_000, 700_000), "g1": GpuLimits(200_000, 700_000, 650_000)}
SAFE = 500_000


def pod(name: str, watts: str | None = None) -> Pod:
    return Pod(uid=f"uid-{name}", ref=PodRef("ns", name), annotations={} if watts is None else {ANNOTATION: watts})


def test_an_annotated_pod_caps_its_gpu_and_the_limit_found_is_remembered() -> None:
    aims = plan(GPUS, {"g1": (pod("a", "400"),)}, {}, SAFE)
    assert (aims.targets_mw, aims.found_mw) == ({"g1": 400_000}, {"g1": 650_000})
    assert aims.notes == ()


def test_a_gpu_that_never_had_an_annotated_pod_is_left_alone() -> None:
    aims = plan(GPUS, {"g0": (pod("a"),)}, {}, SAFE)
    assert (aims.targets_mw, aims.found_mw) == ({}, {})


def test_the_lowest_wins_on_a_shared_gpu_and_all_of_them_are_reported() -> None:
    aims = plan(GPUS, {"g0": (pod("a", "450"), pod("b", "300"), pod("c"))}, {}, SAFE)
    assert aims.targets_mw == {"g0": 300_000}
    assert [(note.kind, note.pod.ref.name) for note in aims.notes] == [(NoteKind.SHARED, name) for name in "abc"]
    assert "300 W" in aims.notes[0].text


@pytest.mark.parametrize("text", ["", "abc", "-5", "0", "400.5", "4e2", " 400", "400W", "٤٠٠", "9" * 30])
def test_what_cannot_be_read_is_the_safe_default_with_a_note(text: str) -> None:
    aims = plan(GPUS, {"g0": (pod("a", text),)}, {}, SAFE)
    assert aims.targets_mw == {"g0": SAFE}
    assert [note.kind for note in aims.notes] == [NoteKind.MALFORMED]
    assert repr(text) in aims.notes[0].text


def test_a_malformed_one_beside_a_lower_one_does_not_raise_it() -> None:
    aims = plan(GPUS, {"g0": (pod("a", "?"), pod("b", "300"))}, {}, SAFE)
    assert aims.targets_mw == {"g0": 300_000}


@pytest.mark.parametrize(("watts", "target"), [("100", 200_000), ("900", 700_000)])
def test_a_limit_that_the_gpu_does_not_take_is_clamped_and_reported(watts: str, target: int) -> None:
    aims = plan(GPUS, {"g0": (pod("a", watts),)}, {}, SAFE)
    assert aims.targets_mw == {"g0": target}
    assert [note.kind for note in aims.notes] == [NoteKind.CLAMPED]


def test_a_gpu_of_ours_keeps_its_cap_while_no_pod_uses_it() -> None:
    aims = plan(GPUS, {}, {"g0": 700_000}, SAFE)
    assert (aims.targets_mw, aims.found_mw, aims.released) == ({}, {"g0": 700_000}, frozenset())


def test_a_managed_gpu_gets_back_the_limit_found_when_a_pod_without_annotation_moves_in() -> None:
    aims = plan(GPUS, {"g0": (pod("b"),)}, {"g0": 690_000}, SAFE)
    assert (aims.targets_mw, aims.released) == ({"g0": 690_000}, frozenset({"g0"}))


def test_what_was_found_first_is_kept_over_a_new_annotation() -> None:
    capped = {"g0": GpuLimits(200_000, 700_000, 400_000)}
    assert plan(capped, {"g0": (pod("a", "300"),)}, {"g0": 700_000}, SAFE).found_mw == {"g0": 700_000}


@given(
    st.dictionaries(
        st.sampled_from(["g0", "g1"]),
        st.lists(st.none() | st.text(max_size=6) | st.integers(-10, 2000).map(str), max_size=4),
    ),
    st.sets(st.sampled_from(["g0", "g1"])),
)
def test_no_target_is_above_any_readable_annotation_or_what_the_gpu_takes(
    texts: dict[str, list[str | None]], ours: set[str]
) -> None:
    pods = {gpu: tuple(pod(str(n), text) for n, text in enumerate(found)) for gpu, found in texts.items()}
    aims = plan(GPUS, pods, dict.fromkeys(ours, 700_000), SAFE)
    assert set(aims.targets_mw) <= set(aims.found_mw)
    for gpu, target in aims.targets_mw.items():
        assert 200_000 <= target <= 700_000
        for text in texts.get(gpu, []):
            if text is not None and text.isascii() and text.isdigit() and 0 < int(text) < 1_000_000:
                assert target <= max(int(text) * 1000, 200_000)
