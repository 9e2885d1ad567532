"""The planner as a service against a real nats-server: decides, reacts, steps down, comes back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus_schemas import v1
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.watch import follow
from tests.contract.bus import until
from tests.integration.planner.stage import DECODE, NAME, PREFILL, SITE, WAIT_S, config, running, staged


async def test_load_becomes_workers_with_power_first_and_every_tick_is_recorded(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, running(stage):
        stage.load_rps = 20.0
        await until(lambda: len(stage.fleet.workers[PREFILL]) > 1, "a scale-up")
        assert stage.fleet.enforced_watts <= 4000
        decision = stage.fleet.scaling[0]
        assert decision.decision_id == 0
        assert decision.num_prefill_workers == decision.pools[PREFILL].replicas
        assert decision.reasons
        plans = stage.bus.subjects.all_of("telemetry", "plan")
        async with asyncio.timeout(WAIT_S):
            async for stored in follow(stage.bus, plans, 0):
                record = stored.message
                assert isinstance(record, v1.PlanRecord)
                assert record.deployment == NAME
                if record.decision_id >= decision.decision_id and record.observed.get("requests", 0) > 0:
                    assert record.pools[DECODE].chain
                    break


async def test_a_budget_cut_is_answered_without_waiting_for_a_tick(tmp_path: Path) -> None:
    # The next tick is so far away that nothing in here can be one.
    async with staged(tmp_path, config(interval_s=1e6)) as stage, running(stage, lease_ttl_s=30.0):
        await until(lambda: 2000 < stage.fleet.enforced_watts <= 4000, "caps that a cut can lower")
        change = v1.BudgetChange(time=datetime.now(UTC), site=SITE, budget_watts=1900, reason="grid")
        await publish(stage.bus, stage.bus.subjects.control_budget(SITE), change, "cut-1")
        await until(lambda: stage.fleet.enforced_watts <= 1900, "compliance with the cut")
        assert any(decision.budget_watts == 1900 for decision in stage.fleet.power)
        assert not any(decided.tick for decided in stage.decided)


async def test_a_second_planner_takes_over_and_repeats_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.load_rps = 20.0
        # A long lease: a busy machine must not let it run out.
        async with running(stage, "one", lease_ttl_s=30.0) as one:
            await until(lambda: one.vitals.epoch is not None, "leading")
            async with running(stage, "two", lease_ttl_s=30.0) as two:
                await until(lambda: len(stage.fleet.scaling) >= 1, "a decision")
                assert two.vitals.epoch is None
        await asyncio.sleep(0)
        known = len(stage.fleet.scaling)
        async with running(stage, "three") as three:
            await until(lambda: three.vitals.ticks >= 4, "ticks of the third planner")
        ids = [decision.decision_id for decision in stage.fleet.scaling]
        assert ids == sorted(set(ids))
        assert len({decision.incarnation for decision in stage.fleet.scaling}) == 1
        counts = [
            {pool: target.replicas for pool, target in decision.pools.items()} for decision in stage.fleet.scaling
        ]
        assert all(one != two for one, two in zip(counts[known - 1 :], counts[known:], strict=False))
        epochs = [decision.epoch for decision in stage.fleet.power]
        assert epochs == sorted(epochs)


@pytest.mark.parametrize("lost", [False, True], ids=["within the lease", "beyond the lease"])
async def test_the_server_may_go_and_come_back(tmp_path: Path, *, lost: bool) -> None:
    async with staged(tmp_path) as stage, running(stage, lease_ttl_s=1.5 if lost else 30.0) as service:
        await until(lambda: service.vitals.ticks >= 2, "ticks")
        await until(lambda: service.vitals.epoch is not None, "leading")
        epoch, terms = service.vitals.epoch, service.vitals.terms
        await stage.server.kill()
        await asyncio.sleep(0.5)
        if lost:
            await until(lambda: service.vitals.epoch is None, "the end of the lead")
        await stage.server.start()
        if lost:
            again = "leading again"
            await until(lambda: service.vitals.terms > terms and service.vitals.epoch is not None, again)
        ticks = service.vitals.ticks
        stage.load_rps = 20.0
        await until(lambda: service.vitals.ticks >= ticks + 3, "ticks after the restart")
        await until(lambda: len(stage.fleet.workers[PREFILL]) > 1, "a scale-up after the restart")
        assert lost or (service.vitals.epoch, service.vitals.terms) == (epoch, terms)


async def test_an_operator_pins_and_releases(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, running(stage):
        subject = stage.bus.subjects.control_deployment(NAME)
        pin = v1.DeploymentControl(
            time=datetime.now(UTC), deployment=NAME, action="pin", replicas={PREFILL: 2, DECODE: 2}
        )
        await publish(stage.bus, subject, pin, "pin-1")
        await until(
            lambda: [len(stage.fleet.workers[pool]) for pool in (PREFILL, DECODE)] == [2, 2], "the pinned counts"
        )
        let_go = v1.DeploymentControl(time=datetime.now(UTC), deployment=NAME, action="release")
        await publish(stage.bus, subject, let_go, "release-1")
        # There is load for one only.
        stage.load_rps = 1.0
        await until(
            lambda: [len(stage.fleet.workers[pool]) for pool in (PREFILL, DECODE)] == [1, 1], "the planner's own counts"
        )
