"""How much of a run is done, and how long the rest takes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from planner.profiler.analysis.sweep import Point

BAR = 24


@dataclass(slots=True)
class SweepProgress:
    """Seconds spent on points so far, by phase; points of one phase cost about the same, as far as one knows."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    done: int = 0

    def point_took(self, point: Point, seconds: float) -> None:
        """A point is done."""
        self.done += 1
        self.seconds.setdefault(point.phase, []).append(seconds)

    def left_s(self, left: Sequence[Point]) -> float | None:
        """Seconds for the points that are left; None before the first point is done."""
        every = [each for phase in self.seconds.values() for each in phase]
        if not every:
            return None
        mean = sum(every) / len(every)
        of_phase = {phase: sum(each) / len(each) for phase, each in self.seconds.items()}
        return sum(of_phase.get(point.phase, mean) for point in left)

    def line(self, left: Sequence[Point], doing: Point) -> str:
        """One line: a bar, the count, the time left, and what is measured now."""
        total = self.done + len(left)
        filled = round(BAR * self.done / total) if total else BAR
        bar = "#" * filled + "." * (BAR - filled)
        return f"[{bar}] {self.done}/{total} points, {_duration(self.left_s(left))}: {doing}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "time left not known yet"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"about {hours} h {minutes} min left"
    return f"about {minutes} min {rest} s left" if minutes else f"about {rest} s left"
