"""Carries out replica counts on the plant as an orchestrator does: drain, reclaim, start, retry.

A newer target takes the place of one that is still being pursued: starting workers that are not wanted any more are
removed first, and workers that still drain serve again before new ones start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from planner.sim.cluster.plant import NoFreeGpuError, Plant

RETRY_S = 1.0


class Orchestrator:
    """Targets by pool. ``on_settled`` is called once for each ``aim``, when it has been carried out completely."""

    def __init__(self, plant: Plant) -> None:
        self.targets: dict[str, int] = {
            name: counts.ready + counts.starting for name, counts in plant.worker_counts().items()
        }
        self.pending: dict[str, int] = {}
        self._plant = plant
        self._hints: dict[str, list[Sequence[str]]] = {}
        self._on_settled: Callable[[], None] | None = None
        self._version = 0

    def aim(
        self,
        targets: Mapping[str, int],
        hints: Mapping[str, list[Sequence[str]]] | None = None,
        on_settled: Callable[[], None] | None = None,
    ) -> None:
        """Pursue ``targets`` from now on; ``hints`` are GPUs for new replicas, by pool."""
        self.targets |= targets
        self._hints = {name: list(gpus) for name, gpus in (hints or {}).items()}
        self._on_settled = on_settled
        self._version += 1
        self._pursue(self._version)

    def _pursue(self, version: int) -> None:
        if version != self._version:
            return
        for name in self.targets:
            self._drain(name)
        self.pending = {name: short for name in self.targets if (short := self._start(name))}
        if not self._settled():
            self._plant.events.at(self._plant.now_s + RETRY_S, self._pursue, version)
        elif self._on_settled is not None:
            done, self._on_settled = self._on_settled, None
            done()

    def _drain(self, name: str) -> None:
        counts = self._plant.worker_counts()[name]
        for _ in range(counts.ready + counts.starting - self.targets[name]):
            self._plant.drain_one(name)

    def _start(self, name: str) -> int:
        """Start the missing replicas, those that still drain first. Returns how many found no GPU."""
        counts = self._plant.worker_counts()[name]
        missing = self.targets[name] - counts.ready - counts.starting
        while missing > 0 and self._plant.reclaim_one(name) is not None:
            missing -= 1
        for started in range(missing):
            hints = self._hints.get(name)
            try:
                self._plant.start_worker(name, hints.pop(0) if hints else None)
            except NoFreeGpuError:
                return missing - started
        return 0

    def _settled(self) -> bool:
        counts = self._plant.worker_counts()
        return all(
            counts[name].ready == target and not counts[name].starting and not counts[name].draining
            for name, target in self.targets.items()
        )
