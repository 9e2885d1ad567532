"""A planner that is started with power switched off, on a bus where its predecessor capped GPUs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from bus_schemas import v1
from bus_schemas.jetstream.reader import last_per_subject
from tests.contract.bus import until
from tests.integration.planner.stage import Stage, config, staged


async def last_power(stage: Stage) -> list[v1.PowerDecision]:
    stored = await last_per_subject(stage.bus, stage.bus.subjects.all_of("decision", "power"))
    return [each.message for each in stored if isinstance(each.message, v1.PowerDecision)]


async def led(stage: Stage, holder: str, *, decided: bool) -> None:
    """Lead with the stage's configuration until something was decided, or for a few iterations."""
    bus = await stage.another_bus()
    before = len(stage.decided)
    service = asyncio.create_task(stage.service(bus, holder).run())
    try:
        await until(
            lambda: (
                any(event.published for event in stage.decided[before:]) if decided else len(stage.decided) > before + 2
            ),
            "the planner decides",
        )
    finally:
        service.cancel()
        await asyncio.gather(service, return_exceptions=True)
        await bus.close()


@pytest.mark.parametrize("given_back", [True, False])
async def test_switching_power_off_leaves_no_cap_behind_unless_asked(tmp_path: Path, given_back: bool) -> None:
    async with staged(tmp_path) as stage:
        await led(stage, "with-power", decided=True)
        capped = await last_power(stage)
        assert capped
        assert any(cap.cap_watts < 700 for decision in capped for cap in decision.caps)
        stage.config = replace(config(), sites={}, release_caps=given_back)
        await led(stage, "without", decided=False)
        last = await last_power(stage)
        assert [decision.decision_id for decision in last] == [decision.decision_id + given_back for decision in capped]
        for decision in last if given_back else ():
            assert {cap.cap_watts for cap in decision.caps} == {cap.fallback_watts for cap in decision.caps} == {700.0}
            assert decision.reasons[0].code == "power_off"
