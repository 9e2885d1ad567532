"""`wattscale budget show` reads commands as the planner does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from bus_schemas import v1
from deploy.views.budgets import CommandState, SiteBudget, as_json, as_text, budgets, states
from deploy.views.site_view import SiteView
from planner.adapters.from_wire import budget_command
from planner.core.power.effective_budget import level_mw, with_commands
from planner.domain.config import SiteConfig
from planner.domain.ids import SiteId
from planner.domain.units import Milliwatts

ZERO = datetime(2026, 1, 2, tzinfo=UTC)
BASE_WATTS = 5000


def command(
    watts: float, from_s: float = 0.0, until_s: float | None = None, ramp_s: float = 0.0, *, release: bool = False
) -> v1.BudgetChange:
    return v1.BudgetChange(
        time=ZERO,
        site="hall-2",
        budget_watts=watts,
        effective_from=ZERO + timedelta(seconds=from_s),
        effective_until=None if until_s is None else ZERO + timedelta(seconds=until_s),
        ramp_s=ramp_s,
        release=release,
        reason="grid",
        issued_by="desk",
    )


ORDERS = st.lists(
    st.builds(
        command,
        st.integers(0, 2000),
        st.integers(0, 100),
        st.none() | st.integers(0, 200),
        st.sampled_from([0.0, 7.0, 30.0]),
        release=st.booleans(),
    ),
    max_size=6,
)


@given(ORDERS, st.integers(0, 200))
def test_the_command_in_force_is_the_one_that_the_planner_obeys(commands: list[v1.BudgetChange], now_s: int) -> None:
    config = SiteConfig(SiteId("hall-2"), Milliwatts(BASE_WATTS * 1000))
    known = tuple(
        budget_command(each, sequence=number, clock_offset_s=ZERO.timestamp()) for number, each in enumerate(commands)
    )
    level = level_mw(config, known, float(now_s))
    found = states(commands, ZERO + timedelta(seconds=now_s))
    deciding = [each for each, state in zip(commands, found, strict=True) if state in ("in force", "on its ramp")]
    assert len(deciding) <= 1
    if not deciding:
        assert level == BASE_WATTS * 1000
    elif CommandState.IN_FORCE in found:
        assert level == (BASE_WATTS if deciding[0].release else deciding[0].budget_watts) * 1000
    # What the planner has forgotten is over, and what is over without a ramp to come from it, it forgets.
    kept = {each.sequence for each in with_commands((), known, "hall-2", float(now_s))}
    assert all(state is CommandState.OVER for number, state in enumerate(found) if number not in kept)


def planned(watts: float, at_s: float) -> SiteView:
    """A view with one tick that decided under ``watts``."""
    view = SiteView()
    at = ZERO + timedelta(seconds=at_s)
    view.add(v1.PlanRecord(time=at, deployment="chat", site="hall-2", decision_id=0, budget_watts=watts))
    return view


def test_one_line_per_command_with_who_and_why() -> None:
    commands = [command(900, 0.0), command(700, 10.0, until_s=60.0), command(0, 90.0, ramp_s=20.0, release=True)]
    commands[2] = commands[2].model_copy(update={"reason": ""})
    starts = "2026-01-02 00:01:30"
    sites = budgets(planned(700.0, 12.0), commands, ZERO + timedelta(seconds=30))
    assert as_text(sites, everything=False).splitlines() == [
        "site hall-2: 700 W now",
        "    900 W from 2026-01-02 00:00:00 UTC, by desk (grid): behind a newer one",
        "    700 W from 2026-01-02 00:00:10 until 2026-01-02 00:01:00 UTC, by desk (grid): in force",
        f"    back to configuration and schedule from {starts} UTC, over a ramp of 20 s, by desk: begins later",
    ]
    shown = as_json(sites)[0]
    assert [row["state"] for row in shown["commands"]] == ["hidden", "in_force", "waiting"]
    assert shown["orders"] == shown["commands"], "the former name, for one release"


def test_what_is_over_shows_when_it_is_asked_for() -> None:
    (site,) = budgets(planned(5000.0, 1.0), [command(900), command(800, release=True)], ZERO + timedelta(seconds=1))
    assert [state for _, state in site.commands] == [CommandState.OVER, CommandState.IN_FORCE]
    told = [as_text([SiteBudget("hall-2", 5000.0, site.commands)], everything=every) for every in (False, True)]
    assert told[0].splitlines()[0] == "site hall-2: 5000 W now, by configuration and schedule"
    assert [len(text.splitlines()) for text in told] == [2, 3]


def test_a_command_that_no_plan_has_yet_is_pending_and_not_in_force() -> None:
    for view in (SiteView(), planned(900.0, -1.0)):
        (site,) = budgets(view, [command(700)], ZERO + timedelta(seconds=1))
        assert [state for _, state in site.commands] == [CommandState.PENDING]
        assert "in force" not in as_text([site], everything=False)
        assert "by configuration" not in as_text([site], everything=False)
    (site,) = budgets(planned(900.0, -1.0), [command(900, release=True)], ZERO + timedelta(seconds=1))
    assert [state for _, state in site.commands] == [CommandState.PENDING]
