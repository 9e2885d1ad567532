"""A wall clock that is set by an hour moves schedules and wire times, and no lease, settle time or window."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from planner.ports import Clock
from planner.runtime.clock import STEP_S, SteadyClock
from planner.runtime.inbox import Inbox
from planner.runtime.leader_term import Surroundings
from planner.runtime.metrics_ticker import MetricsTicker
from planner.runtime.wakeup import Wakeup
from tests.integration.planner.stage import SITE, config

UTC_S = 1_700_000_000.0


@dataclass
class Machine:
    """Real seconds since it began, and how far somebody has set its wall clock."""

    passed_s: float = 0.0
    set_s: float = 0.0

    def wall(self) -> float:
        return UTC_S + self.passed_s + self.set_s

    def steady(self) -> float:
        return 77.0 + self.passed_s


steps = st.lists(st.tuples(st.floats(0.001, 600.0), st.sampled_from([0.0, 3600.0, -3600.0, 0.2, -0.2])), max_size=20)


@given(steps)
def test_only_real_time_moves_the_clock_and_utc_is_followed(walk: list[tuple[float, float]]) -> None:
    machine = Machine()
    clock = SteadyClock(machine.wall, machine.steady)
    assert clock() == UTC_S
    before_s = clock()
    for passes_s, set_s in walk:
        machine.passed_s += passes_s
        machine.set_s += set_s
        now_s = clock()
        assert abs(now_s - before_s - passes_s) < 1e-3, "a lease of that length would have been stretched or cut"
        assert abs(now_s + clock.moved_s() - machine.wall()) < STEP_S + 1e-3, "a schedule would miss UTC"
        before_s = now_s


def surroundings(clock: SteadyClock) -> Surroundings:
    wake = Wakeup()
    seen: Clock = clock
    inbox = Inbox(wake.now, wake.soon, seen, 0.0)
    link: object = None
    reader = MetricsTicker([], 1.0, 1.0, seen, wake.now)
    return Surroundings(config(), link, inbox, wake, reader, seen, moved_s=clock.moved_s)  # type: ignore[arg-type]


def test_an_hour_forward_and_back_moves_schedules_and_the_wire_and_comes_back() -> None:
    machine = Machine()
    clock = SteadyClock(machine.wall, machine.steady)
    around = surroundings(clock)
    first = around.config
    around.follow_utc()
    assert around.config is first, "nothing was set"
    for set_s in (3600.0, 0.0):
        machine.set_s = set_s
        now_s = clock()
        around.follow_utc()
        assert clock() == now_s == UTC_S
        assert around.config.utc_at_zero_s + now_s == machine.wall()
        assert around.config.sites[SITE].utc_at_zero_s + now_s == machine.wall()
        assert around.inbox.offset_s + now_s == machine.wall()
        assert around.clock_offset_s + now_s == machine.wall()
