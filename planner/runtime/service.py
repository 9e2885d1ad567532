"""The planner as a service: listens, campaigns for the lead, decides while it leads, and steps down at once.

Owns the tasks and their order. Decides nothing itself: ``LeaderTerm`` runs the pure core, ``Link`` talks to the bus.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.cancellation import cancellation_kept
from bus_schemas.jetstream.tasks.task_group import run_together
from planner.adapters.jetstream_link import BusLink
from planner.adapters.plausibility import ReportBounds
from planner.core import advisory
from planner.core.power.site_state import belongs
from planner.domain.config import PlannerConfig
from planner.domain.ids import NodeId
from planner.domain.plan import Plan
from planner.domain.units import watts_from_mw
from planner.ports import Clock, Link, LinkAwayError, LinkUnfitError, Observer, Term, TermEndedError
from planner.runtime.clock import SteadyClock
from planner.runtime.decision_event import DecisionEvent, Watcher
from planner.runtime.inbox import Inbox
from planner.runtime.leader_term import LeaderTerm, Surroundings
from planner.runtime.metrics_ticker import MetricsTicker
from planner.runtime.shared_listener import SharedListener
from planner.runtime.telemetry.bus_watch import BusWatch, ProblemCode
from planner.runtime.telemetry.liveness import Liveness
from planner.runtime.wakeup import Wakeup

log = logging.getLogger(__name__)


def default_holder() -> str:
    """A name for this process in the lease: host and process id."""
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """How the service runs; what it decides is in ``PlannerConfig``. Seconds are real seconds.

    ``clock_offset_s``: UTC seconds at 0 of the planner's clock when it starts (0 where it starts as UTC).
    ``journal``: keep observations in plan records, from which the next leader's forecasts and windows come back.
    ``idle_s``: longest pause between two iterations when no event causes one.
    """

    holder: str = ""
    lease_ttl_s: float = 10.0
    observe_timeout_s: float = 15.0
    idle_s: float = 1.0
    gather_s: float = 0.1
    clock_offset_s: float = 0.0
    journal: bool = True


class PlannerService:
    """One planner process. Several may run: one leads, the others listen and take over.

    ``on_plan`` is called after every decision was published, tick or reaction, on the loop; it must not block.
    ``while_leading``: further work by name, begun with each term and cancelled with it; a failure of one ends the term.
    """

    def __init__(
        self,
        config: PlannerConfig,
        bus: Bus,
        observers: Sequence[Observer],
        settings: ServiceSettings | None = None,
        clock: Clock | None = None,
        on_plan: Callable[[Plan], None] | None = None,
        *,
        watchers: Sequence[Watcher] = (),
        trace: Callable[[DecisionEvent], str | None] = lambda decided: None,
        link: Link | None = None,
        while_leading: Mapping[str, Callable[[], Coroutine[Any, Any, None]]] | None = None,
    ) -> None:
        settings = settings or ServiceSettings()
        clock = SteadyClock() if clock is None else clock
        budgets = {str(name): watts_from_mw(site.budget_mw) for name, site in config.sites.items()}
        holder = settings.holder or default_holder()
        self._link = link or BusLink(bus, holder, settings.lease_ttl_s, budgets_watts=budgets)
        self._observers = tuple(observers)
        self._while_leading = dict(while_leading or {})
        self.vitals = Liveness(standing=lambda: self._link.standing)
        caps_are_decided = any(not advisory.hands_off(config, site) for site in config.sites)
        self.bus_watch = BusWatch(
            self.vitals, lambda: self._link.standing, budgets, clock, expects_nodes=caps_are_decided
        )
        self._backoff = Backoff(first_s=0.1, longest_s=10.0)
        wake = Wakeup(settings.gather_s)
        inbox = Inbox(
            wake.now,
            wake.soon,
            clock,
            settings.clock_offset_s,
            config.deployments,
            self.bus_watch.reported,
            partial(self.bus_watch.note, ProblemCode.IMPLAUSIBLE),
            partial(_bounds, config),
        )
        self.listener = SharedListener(inbox)
        """Takes in what arrives on the bus; a page in this process shares it."""
        reader = MetricsTicker(self._observers, config.interval_s, settings.observe_timeout_s, clock, wake.now)
        self._around = Surroundings(
            config=config,
            link=self._link,
            inbox=inbox,
            wake=wake,
            reader=reader,
            clock=clock,
            clock_offset_s=settings.clock_offset_s,
            moved_s=clock.moved_s if isinstance(clock, SteadyClock) else lambda: 0.0,
            idle_s=settings.idle_s,
            journal=settings.journal,
            watchers=[self._note, *([_plans(on_plan)] if on_plan else []), *watchers],
            trace=trace,
            published=self.listener.published,
            problems=self.bus_watch.problems,
        )

    async def run(self) -> None:
        """Run until cancelled; then close metrics connections and release the lead."""
        try:
            await run_together(
                {
                    "listen": self._link.listen(self.listener),
                    "campaign": self._campaign(),
                    "heartbeat": self.vitals.beat(),
                    "problems": self.bus_watch.run(),
                }
            )
        finally:
            for observer in self._observers:
                await observer.close()

    async def _campaign(self) -> None:
        """Lead, lose the lead and try again, until cancelled. A failure of any kind ends the term, not the process."""
        while True:
            try:
                with cancellation_kept():
                    async with self._link.lead() as term:
                        await self._serve(term)
            except TermEndedError as lost:
                log.warning("no longer leading: %s", lost)
            except LinkUnfitError as unfit:
                log.error("not leading: %s", unfit)  # noqa: TRY400  # a sentence for operators, not a fault of ours
                self.vitals.unfit = str(unfit)
            except LinkAwayError as away:
                log.warning("the bus is away: %s", away)
            except Exception:
                log.exception("a term of leadership failed")
            self.vitals.leading(None, self._around.clock())
            await asyncio.sleep(self._backoff.next_s())

    async def _serve(self, term: Term) -> None:
        """One term, until the lead is lost (``Link.lead`` then cancels it) or one of its loops ends."""
        self.vitals.leading(term.epoch, self._around.clock())
        await run_together(
            {
                "metrics": self._around.reader.run(),
                "decide": LeaderTerm(self._around, term).run(),
                **{name: work() for name, work in self._while_leading.items()},
            }
        )

    def watch(self, watcher: Watcher) -> None:
        """Call ``watcher`` with every decision from now on."""
        self._around.watchers.append(watcher)

    def _note(self, decided: DecisionEvent) -> None:
        # Not when the lead was won: a term that ends before its first decision must not begin again at once.
        self._backoff.reset()
        self.vitals.decided(decided.now_s, tick=decided.tick)


def _plans(on_plan: Callable[[Plan], None]) -> Watcher:
    def watch(decided: DecisionEvent) -> None:
        on_plan(decided.plan)

    return watch


def _bounds(config: PlannerConfig, node: str) -> ReportBounds:
    """The bounds of a node's reports, by the site that it draws from."""
    for site in config.sites.values():
        if belongs(NodeId(node), site):
            return ReportBounds(watts_from_mw(site.highest_gpu_mw), site.most_gpus_per_node)
    return ReportBounds()
