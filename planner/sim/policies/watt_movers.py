"""Peers that share out watts: fixed caps, steering by draw alone, and a reactive mover of watts and then of GPUs.

Watts are never created: the limits that a rule sets add up to the budget in force at most, idle GPUs at their lowest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from planner.sim.cluster.sim_gpu import SimGpuReading
from planner.sim.evaluation.simulation import SimulationRun
from planner.sim.policies.cap_policies import NoCaps, fed
from planner.sim.workload.scenario import DECODE, PREFILL, Scenario

APPLY_EVERY_S = 1.0


class FixedCaps(NoCaps):
    """One cap a role, and as many replicas as the smallest budget feeds at them; the rest stay idle and unlimited.

    ``share``: caps as a share of the nameplate, for both roles; ``watts``: by role, prefill then decode, in watts.
    """

    def __init__(self, share: float = 0.8, watts: tuple[float, float] | None = None) -> None:
        self._share, self._watts = share, watts

    def caps_mw(self, scenario: Scenario) -> dict[str, int]:
        """The cap of each role, in milliwatts, within what the card takes."""
        card = scenario.cluster.card
        even = self._share * card.default_mw / 1000
        chosen = self._watts or (even, even)
        return {
            role: min(card.max_mw, max(card.min_mw, int(watts * 1000)))
            for role, watts in zip((PREFILL, DECODE), chosen, strict=True)
        }

    def allowed(self, scenario: Scenario, wanted: Mapping[str, int]) -> Mapping[str, int]:
        return fed(scenario, wanted, self.caps_mw(scenario))

    def attach(self, run: SimulationRun) -> None:
        if run.scenario.budget is not None:
            self._apply(run)

    def _apply(self, run: SimulationRun) -> None:
        if run.over:
            return
        caps, lowest = self.caps_mw(run.scenario), run.scenario.cluster.card.min_mw
        for reading in run.plant.readings():
            _limit(run, reading, caps.get(reading.pool, lowest))
        run.plant.events.at(run.now_s + APPLY_EVERY_S, self._apply, run)


class SteeredCaps(NoCaps):
    """Steers watts that GPUs do not draw to those that draw all that they may; knows nothing of requests.

    A loop of 90 s over a window of 5: the documented defaults of NVIDIA's power reservation steering (Domain Power
    Service 0.7.6, ``loopIntervalSeconds`` and ``windowSize``). How much is left to a GPU above its draw is not
    documented; ``SLACK`` is ours.
    """

    BUSY, SLACK = 0.95, 1.10

    def __init__(self, every_s: float = 90.0, window: int = 5) -> None:
        self._every_s = every_s
        self._drawn: deque[dict[str, float]] = deque(maxlen=window)
        self._energy_mj: dict[str, int] = {}

    def attach(self, run: SimulationRun) -> None:
        for t_s, mw in run.scenario.budget.steps if run.scenario.budget else ():
            run.plant.events.at(t_s, lambda budget_mw: self._even(run, budget_mw), mw)
        self._energy_mj = {reading.gpu: reading.energy_mj for reading in run.plant.readings()}
        run.plant.events.at(self._every_s, self._steer, run)

    def _even(self, run: SimulationRun, budget_mw: int) -> None:
        for reading in run.plant.readings():
            _limit(run, reading, budget_mw // run.scenario.gpus)

    def _steer(self, run: SimulationRun) -> None:
        if run.over or run.scenario.budget is None:
            return
        readings = run.plant.readings()
        self._drawn.append({r.gpu: (r.energy_mj - self._energy_mj[r.gpu]) / self._every_s for r in readings})
        self._energy_mj = {r.gpu: r.energy_mj for r in readings}
        used = {r.gpu: float(np.mean([sample[r.gpu] for sample in self._drawn])) for r in readings}
        caps = steered(readings, used, run.scenario.budget.at(run.now_s), self.BUSY, self.SLACK)
        card = run.scenario.cluster.card
        for reading in readings:
            _limit(run, reading, min(card.max_mw, max(card.min_mw, caps[reading.gpu])))
        run.plant.events.at(run.now_s + self._every_s, self._steer, run)


def steered(
    readings: Sequence[SimGpuReading], used_mw: Mapping[str, float], budget_mw: int, busy: float, slack: float
) -> dict[str, int]:
    """Limits by GPU in milliwatts that add up to at most ``budget_mw``.

    A GPU that drew less than ``busy`` times its limit keeps ``slack`` times its draw; the others share what is left
    evenly. Where nobody is busy, or the draw alone exceeds the budget, all get the same.
    """
    even = budget_mw // len(readings)
    idle = {r.gpu: int(used_mw[r.gpu] * slack) for r in readings if used_mw[r.gpu] < busy * r.enforced_mw}
    lowest = {gpu: min(mw, even) for gpu, mw in idle.items()}
    takers = [r.gpu for r in readings if r.gpu not in idle]
    if not takers:
        return dict.fromkeys((r.gpu for r in readings), even)
    return lowest | dict.fromkeys(takers, (budget_mw - sum(lowest.values())) // len(takers))


class WattMover(NoCaps):
    """Moves watts, and once these are spent GPUs, to the phase whose requests are late: as RAPID (arXiv 2601.12241).

    Every ``every_s``: where one phase misses its target (at the 90th percentile of the requests that finished in the
    last ``WINDOW_S``) and the other does not, or misses by less, each of its GPUs gets ``step_w`` more from the other.
    Where its GPUs have all that the card takes, or the other has no watts to give, one GPU changes its role, and the
    mover rests for ``REST_BEATS``. Step, interval and rest are ours; a benchmark tries
    several steps.
    """

    WINDOW_S, QUANTILE, REST_BEATS = 30.0, 90.0, 6

    def __init__(self, step_w: float = 50.0, every_s: float = 5.0) -> None:
        self.every_s = every_s
        self._step_mw = int(step_w * 1000)
        self._prefill_extra_mw = 0
        """What a prefill GPU may draw more than a decode GPU, in milliwatts."""
        self._rest = 0
        self._seen = 0

    def prepare(self, run: SimulationRun) -> None:
        self._set(run)

    def attach(self, run: SimulationRun) -> None:
        self._set(run)

    def wanted(self, run: SimulationRun) -> Mapping[str, int]:
        counts = dict(run.fleet.targets)
        self._rest = max(0, self._rest - 1)
        late = self._late(run)
        if run.scenario.budget is not None and max(late.values()) > 1.0 and self._rest == 0:
            needy, giver = (PREFILL, DECODE) if late[PREFILL] > late[DECODE] else (DECODE, PREFILL)
            if not self._moved(run, needy) and counts[giver] > 1:
                counts[giver] -= 1
                counts[needy] += 1
                self._rest = self.REST_BEATS
        self._set(run)
        return counts

    def _moved(self, run: SimulationRun, needy: str) -> bool:
        """Whether watts were moved to a phase; False where there were none to move."""
        before = self._limits(run)
        old = self._prefill_extra_mw
        self._prefill_extra_mw += self._step_mw if needy == PREFILL else -self._step_mw
        if self._limits(run)[needy] > before[needy]:
            return True
        self._prefill_extra_mw = old
        return False

    def _limits(self, run: SimulationRun) -> dict[str, int]:
        """Caps by role within the budget in force, of all GPUs that a worker holds."""
        budget, card = run.scenario.budget, run.scenario.cluster.card
        held = [r.pool for r in run.plant.readings()]
        prefill, decode, free = held.count(PREFILL), held.count(DECODE), held.count("")
        if budget is None:
            return {PREFILL: card.max_mw, DECODE: card.max_mw}
        left = budget.at(run.now_s) - free * card.min_mw
        at_decode = (left - prefill * self._prefill_extra_mw) / max(1, prefill + decode)
        caps: dict[str, float] = {PREFILL: at_decode + self._prefill_extra_mw, DECODE: at_decode}
        return _within(caps, {PREFILL: prefill, DECODE: decode}, left, card.min_mw, card.max_mw)

    def _set(self, run: SimulationRun) -> None:
        caps, lowest = self._limits(run), run.scenario.cluster.card.min_mw
        for reading in run.plant.readings():
            _limit(run, reading, caps.get(reading.pool, lowest))

    def _late(self, run: SimulationRun) -> dict[str, float]:
        """By role: the recent latency as a multiple of its target."""
        records, scenario = run.plant.records, run.scenario
        recent = [records[index] for index in range(self._seen, len(records))]
        recent = [one for one in recent if one.finished_s > run.now_s - self.WINDOW_S]
        self._seen = len(records) - len(recent)
        if not recent:
            return {PREFILL: 2.0 if run.plant.pools[PREFILL].waiting() else 0.0, DECODE: 0.0}
        ttft = float(np.percentile([one.ttft_ms for one in recent], self.QUANTILE))
        itl = float(np.percentile([one.itl_ms for one in recent], self.QUANTILE))
        return {PREFILL: ttft / scenario.ttft_ms, DECODE: itl / scenario.itl_ms}


def _within(
    caps: Mapping[str, float], gpus: Mapping[str, int], left_mw: float, lowest_mw: int, highest_mw: int
) -> dict[str, int]:
    """Two roles' caps brought into the card's range; what one cannot take goes to the other, within ``left_mw``."""
    found = {role: min(float(highest_mw), max(float(lowest_mw), mw)) for role, mw in caps.items()}
    for role, other in ((PREFILL, DECODE), (DECODE, PREFILL)):
        rest = (left_mw - gpus[other] * found[other]) / max(1, gpus[role])
        found[role] = min(float(highest_mw), max(float(lowest_mw), min(found[role], rest)))
    for role, other in ((PREFILL, DECODE), (DECODE, PREFILL)):
        rest = (left_mw - gpus[other] * found[other]) / max(1, gpus[role])
        found[role] = min(float(highest_mw), max(found[role], rest)) if gpus[role] else found[role]
    return {role: int(mw) for role, mw in found.items()}


def _limit(run: SimulationRun, reading: SimGpuReading, mw: int) -> None:
    if mw != reading.requested_mw:
        run.plant.set_cap(reading.gpu, mw)
