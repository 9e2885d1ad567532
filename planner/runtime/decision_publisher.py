"""Writes one term's decisions to the bus: as messages, in the safe order, until they are stored or the lead is lost.

Owns the incarnations of the subjects. Must never publish a newer batch before the older one is settled: a batch whose
answer was lost is sent again, unchanged.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from bus_schemas import v1
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.cancellation import cancellation_kept
from planner.adapters import to_wire
from planner.core.power.incarnation import refuses
from planner.core.power.site_state import belongs
from planner.domain.config import PlannerConfig
from planner.domain.ids import DeploymentId, NodeId
from planner.domain.observation import PowerAckSeen
from planner.domain.plan import Plan, SitePlan
from planner.ports import LinkAwayError, StoredHistory, Term, TermEndedError

log = logging.getLogger(__name__)

PATIENCE = 10
"""Number of attempts at one batch, each with its own retries, before the term is given up."""


class DecisionPublisher:
    """One term's. ``expect`` and ``expect_power`` are called with the incarnation that acknowledgements must name."""

    def __init__(
        self,
        term: Term,
        config: PlannerConfig,
        past: StoredHistory,
        expect: Callable[[DeploymentId, str], None],
        expect_power: Callable[[NodeId, str], None],
    ) -> None:
        self._term = term
        self._config = config
        self._expect = expect
        self._expect_power = expect_power
        # On a restored bus, the ids and epochs of a known incarnation may by now belong to other decisions.
        anew = past.doubt != ""
        self._incarnations: dict[str, str] = {
            power.node: uuid.uuid4().hex if anew else power.incarnation for power in past.power
        }
        for power in past.power:
            expect_power(NodeId(power.node), self._incarnations[power.node])
        for decision in past.scaling:
            self._incarnations[decision.deployment] = decision.incarnation
            expect(DeploymentId(decision.deployment), decision.incarnation)
        self._backoff = Backoff(first_s=0.05, longest_s=5.0)

    def renew_incarnations(self, acks: Iterable[PowerAckSeen]) -> None:
        """Begin a new incarnation for nodes whose answers know a later epoch than ours.

        They prove that the stream was restored from a copy: the agents refuse our ids, but accept a new incarnation. A
        planner that no longer leads cannot publish one.
        """
        for ack in acks:
            if refuses(ack, self._term.epoch, self._incarnations.get(ack.node, "")):
                self._incarnations[ack.node] = uuid.uuid4().hex
                log.warning("%s answers to epoch %d, later than ours: it gets a new incarnation", ack.node, ack.epoch)

    def messages(self, plan: Plan, at: datetime) -> list[v1.Message]:
        """Power first (lowers before raises, as the plan orders them), then scaling: safe at every prefix."""
        epoch = self._term.epoch
        for order in plan.power:
            self._expect_power(order.node, self._incarnation(order.node))
        found: list[v1.Message] = [
            to_wire.power_decision(
                order, self._site_of(order.node, plan), epoch=epoch, incarnation=self._incarnation(order.node), at=at
            )
            for order in plan.power
        ]
        for scaling in plan.scaling:
            incarnation = self._incarnation(scaling.deployment)
            self._expect(scaling.deployment, incarnation)
            config = self._config.deployments[scaling.deployment]
            found.append(to_wire.scaling_decision(scaling, config, epoch=epoch, incarnation=incarnation, at=at))
        return found

    def _site_of(self, node: NodeId, plan: Plan) -> SitePlan | None:
        sites = self._config.sites.items()
        return next((plan.sites.get(name) for name, config in sites if belongs(node, config)), None)

    def _incarnation(self, name: str) -> str:
        return self._incarnations.setdefault(name, uuid.uuid4().hex)

    async def write(self, messages: Sequence[v1.Message], traceparent: str | None) -> Sequence[int]:
        """Publish the same batch until it is stored. If the bus keeps refusing it, the term ends and the next reads the
        bus.

        Returns the messages' places in their stream; empty where those are not known. Raises TermEndedError.
        """
        for _ in range(PATIENCE):
            try:
                with cancellation_kept():
                    places = await self._term.publish(messages, traceparent)
            except LinkAwayError as error:
                pause_s = self._backoff.next_s()
                log.warning("the bus did not answer; the same decisions go out again in %.2f s: %s", pause_s, error)
                await asyncio.sleep(pause_s)
            else:
                self._backoff.reset()
                return places
        raise TermEndedError(f"{len(messages)} decisions were not stored in {PATIENCE} attempts; beginning again")
