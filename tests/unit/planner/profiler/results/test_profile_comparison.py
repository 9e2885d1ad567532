"""Two profiles as one table: interpolated within what the second has, and never beyond."""

from __future__ import annotations

import pytest

from planner.domain.profile import DecodeProfile, PrefillProfile, Profile
from planner.profiler.results.profile_comparison import compared, comparison_lines


def profile(
    name: str, isls: tuple[int, ...], loads: tuple[int, ...], *, faster: float = 1.0, kv: int = 100_000
) -> Profile:
    """TTFT of 20 ms + 0.1 ms a token; ITL of 5 ms + 0.1 ms a request + 0.001 ms a token of context."""
    contexts = (500.0, 2000.0)
    points = [(context, n, (5 + 0.1 * n + 0.001 * context) / faster) for context in contexts for n in loads]
    return Profile(
        name,
        PrefillProfile(isls, tuple((20 + 0.1 * isl) / faster for isl in isls), tuple(1.0 for _ in isls)),
        DecodeProfile(
            tuple(n * context / kv for context, n, _ in points),
            tuple(context for context, _, _ in points),
            tuple(ms for _, _, ms in points),
            tuple(1.0 for _ in points),
            kv,
        ),
    )


def test_values_between_points_are_interpolated_whatever_the_kv_caches() -> None:
    first, second = (
        profile("a", (100, 1000), (1, 7, 30)),
        profile("b", (50, 2000), (1, 10, 20, 40), faster=1.25, kv=70_000),
    )
    points = compared(first, second)
    assert [point.difference for point in points] == pytest.approx([-0.2] * 8)
    assert [(point.phase, point.context, point.in_flight) for point in points[:4]] == [
        ("prefill", 100, 1),
        ("prefill", 1000, 1),
        ("decode", 500, 1),
        ("decode", 500, 7),
    ]


def test_a_context_between_two_of_the_second_is_interpolated() -> None:
    first = Profile("a", None, DecodeProfile((0.1,), (1000.0,), (8.0,), (1.0,), 100_000))
    (point,) = compared(first, profile("b", (50, 2000), (1, 10)))
    assert point.second_ms == pytest.approx(5 + 0.1 * 10 + 0.001 * 1000)


def test_points_outside_of_the_second_have_no_difference() -> None:
    first, second = profile("a", (100, 3000), (1, 64)), profile("b", (50, 2000), (1, 40))
    assert [point.second_ms is None for point in compared(first, second)] == [False, True, False, True, False, True]
    lines = comparison_lines(first, second)
    assert lines[0] == "A: a: prefill TP 1, decode TP 1, KV cache 100000 tokens"
    assert lines[4].split() == ["prefill", "3000", "1", "320.00", "-", "-"]
    assert lines[-4:] == (
        "prefill: TTFT of 1 points differs by 0.0% in the median, by 0.0% at most",
        "prefill: 1 points of A lie outside of what B covers",
        "decode: ITL of 2 points differs by 0.0% in the median, by 0.0% at most",
        "decode: 2 points of A lie outside of what B covers",
    )


def test_profiles_without_a_phase_in_common() -> None:
    whole = profile("a", (100, 200), (1, 2))
    with pytest.raises(ValueError, match="the profiles have no phase in common"):
        compared(Profile("a", whole.prefill, None), Profile("b", None, whole.decode))
