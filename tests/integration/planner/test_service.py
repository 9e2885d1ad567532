"""The planner as a service against a real nats-server: decides, reacts, steps down, comes back."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus_schemas import v1
from bus_schemas.jetstream.publish import publish
from bus_schemas.jetstream.read import last_per_subject
from tests.integration.planner.stage import DECODE, NAME, PREFILL, SITE, running, staged, until


async def test_load_becomes_workers_with_power_first_and_every_tick_is_recorded(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, running(stage):
        stage.load_rps = 20.0
        await until(lambda: len(stage.fleet.workers[PREFILL]) > 1, "a scale-up")
        assert stage.fleet.enforced_watts <= 4000
        decision = stage.fleet.scaling[0]
        assert decision.decision_id == 0
        assert decision.num_prefill_workers == decision.pools[PREFILL].replicas
        assert decision.reasons
        decided = len(stage.decided)
        await until(lambda: any(d.tick for d in stage.decided[decided:]), "the next tick")
        await asyncio.sleep(0.2)  # its record goes out beside the decisions
        records = await last_per_subject(stage.bus, stage.bus.subjects.all_of("telemetry", "plan"))
        record = records[-1].message
        assert isinstance(record, v1.PlanRecord)
        assert record.deployment == NAME
        assert record.observed["num_req"] > 0
        assert record.pools[DECODE].chain


async def test_a_budget_cut_is_answered_without_waiting_for_a_tick(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage, running(stage):
        stage.load_rps = 20.0
        await until(lambda: len(stage.fleet.workers[PREFILL]) > 1, "a scale-up")
        await until(lambda: 2000 < stage.fleet.enforced_watts <= 4000, "caps that a cut can lower")
        change = v1.BudgetChange(time=datetime.now(UTC), site=SITE, budget_watts=1900, reason="grid")
        sent = time.monotonic()
        await publish(stage.bus, stage.bus.subjects.control_budget(SITE), change, "cut-1")
        await until(lambda: stage.fleet.enforced_watts <= 1900, "compliance with the cut")
        took_s = time.monotonic() - sent
        cut = next(decision for decision in stage.fleet.power if decision.budget_watts == 1900)
        # A tick is half a second away at most; a reaction waits for none. The rest is room for a busy machine.
        assert cut.time.timestamp() - change.time.timestamp() < 0.3
        assert took_s < 1.5


async def test_a_second_planner_takes_over_and_repeats_nothing(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.load_rps = 20.0
        async with running(stage, "one") as one:
            await until(lambda: one.vitals.epoch is not None, "leading")
            async with running(stage, "two") as two:
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
    async with staged(tmp_path) as stage, running(stage) as service:
        await until(lambda: service.vitals.ticks >= 2, "ticks")
        await stage.server.kill()
        await asyncio.sleep(0.5)
        if lost:
            await until(lambda: service.vitals.epoch is None, "the end of the lead")
        await stage.server.start()
        await until(lambda: service.vitals.terms > lost and service.vitals.epoch is not None, "leading again")
        ticks = service.vitals.ticks
        stage.load_rps = 20.0
        await until(lambda: service.vitals.ticks >= ticks + 3, "ticks after the restart")
        await until(lambda: len(stage.fleet.workers[PREFILL]) > 1, "a scale-up after the restart")


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
