"""The brake: draw above the budget for a whole window takes watts off it; unknown draw is not zero."""

from __future__ import annotations

from planner.core.power.brake import HOLD_S, RELEASE_S, Brake, watch


def fed(draws: list[tuple[float, int | None]], allowed: int = 1000, promised: int = 1000) -> Brake:
    brake = Brake()
    for now_s, draw in draws:
        brake = watch(brake, draw, allowed, promised, now_s)
    return brake


def test_draw_within_the_budget_presses_nothing() -> None:
    assert fed([(t * 0.5, 990) for t in range(20)]).off_mw(10.0) == 0


def test_a_short_peak_is_averaged_away() -> None:
    draws = [(t * 0.5, 900) for t in range(8)] + [(4.0, 1200), (4.5, 900), (5.0, 900)]
    assert fed(list(draws)).off_mw(5.0) == 0


def test_an_excess_over_the_window_is_taken_off() -> None:
    brake = fed([(t * 0.5, 1100) for t in range(5)])
    assert brake.off_mw(2.0) == 100


def test_what_limits_let_through_beyond_their_promise_counts_in_full() -> None:
    brake = fed([(t * 0.5, 1100) for t in range(5)], promised=800)
    assert brake.off_mw(2.0) == 300


def test_charges_above_the_budget_are_a_cut_on_its_way_and_press_nothing() -> None:
    assert fed([(t * 0.5, 1100) for t in range(9)], promised=1200).off_mw(4.0) == 0


def test_a_weaker_press_later_does_not_let_go() -> None:
    brake = fed([(t * 0.5, 1100) for t in range(5)], promised=800)
    for n in range(5):
        brake = watch(brake, 1010, 1000, 900, 2.5 + n * 0.5)
    assert brake.off_mw(4.5) == 300


def test_it_lets_go_slowly() -> None:
    brake = fed([(t * 0.5, 1100) for t in range(5)])
    assert brake.off_mw(2.0 + HOLD_S) == 100
    assert brake.off_mw(2.0 + HOLD_S + RELEASE_S / 2) == 50
    assert brake.off_mw(2.0 + HOLD_S + RELEASE_S) == 0


def test_unknown_draw_forgets_the_window_and_keeps_the_brake() -> None:
    brake = fed([(t * 0.5, 1100) for t in range(5)])
    brake = watch(brake, None, 1000, 1000, 2.5)
    assert brake.draws == ()
    assert brake.off_mw(2.5) == 100
