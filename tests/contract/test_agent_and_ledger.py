"""What the planner's ledger charges for what the agent reports, for every NVML error by call.

From the C library through the real bindings, the agent's core and the wire into the real ledger. Whatever fails, and
whatever is reported about it, no GPU is ever charged less than what its hardware enforces.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.adapters.messages import ack_of, decision_of
from agent.drivers.nvml.driver import NvmlDriver
from agent.drivers.nvml.errors import KINDS
from agent.ports import QUARANTINE_KINDS, UNCAPPABLE_KINDS, DriverErrorKind, NoOwners, monotonic
from agent.runtime.service import PowerAgentService
from agent.runtime.settings import PowerAgentSettings
from bus_schemas.v1 import GpuCap, NodeTelemetry, PowerDecision
from planner.adapters import from_wire
from planner.core.power import charging as ledgers
from tests.doubles.nvml.loaded import loaded_nvml
from tests.doubles.nvml.state import IGNORES_WRITES, FakeNvml

ERRORS = [*range(1, 31), 999]
DEFAULT_MW, CAP_MW, SETTLE_S = 700_000, 400_000, 2.0


class AgentAndLedger:
    """One agent and one node's ledger, with the bus between them reduced to the messages themselves."""

    def __init__(self, fake: FakeNvml) -> None:
        self.fake = fake
        settings = PowerAgentSettings(node="n", call_timeout_s=30.0)
        self.agent = PowerAgentService(settings, None, NvmlDriver(), NoOwners())
        hardware = self.agent.hardware
        hardware.read_patience_s = hardware.write_patience_s = 30.0  # What a write did is asserted right after it.
        self.clock_s = 0.0

    def telemetry(self) -> NodeTelemetry:
        return self.agent.view.telemetry(self.agent.reconciler.report())

    async def begin(self) -> None:
        await self.agent.reconciler.start()
        self.ledger = ledgers.enroll(from_wire.node(self.telemetry(), age_s=0.0), self.clock_s)

    async def decide(self, cap_mw: int) -> None:
        """The ledger charges, the decision goes out, is carried out and answered, and telemetry follows."""
        number = self.ledger.next_id
        self.ledger = ledgers.issue(self.ledger, (cap_mw,) * 2, self.clock_s, raises=False)
        caps = tuple(GpuCap(gpu=gpu, cap_watts=cap_mw / 1000, fallback_watts=200.0) for gpu in self.ledger.cards.gpus)
        told = self.telemetry()
        message = PowerDecision(
            time=told.time, node="n", decision_id=number, incarnation="i", epoch=1, valid_for_s=60.0, caps=caps
        )
        _, report = await self.agent.reconciler.decide(decision_of(message))
        ack = ack_of(report, node="n", boot=self.agent.boot, clock_s=monotonic())
        self.clock_s += 1.0
        self.ledger = ledgers.acknowledge(self.ledger, from_wire.power_ack(ack), self.clock_s, SETTLE_S)
        self.clock_s += 1.0
        self.ledger = ledgers.with_report(self.ledger, from_wire.node(self.telemetry(), age_s=0.0), self.clock_s)

    def charged(self) -> list[int]:
        return list(self.ledger.charge_mw)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[AgentAndLedger]:
    with loaded_nvml(tmp_path) as fake:
        pair = AgentAndLedger(fake)
        await pair.begin()
        yield pair
        await pair.agent.hardware.close()


async def test_all_is_well(pair: AgentAndLedger) -> None:
    await pair.decide(CAP_MW)
    assert pair.fake.enforced == [CAP_MW, CAP_MW]
    assert pair.charged() == [CAP_MW, CAP_MW]


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize(
    "call", ["get_limit", "enforced", "handle_by_uuid", "uuid", "set_limit", "energy", "processes"]
)
async def test_no_error_makes_a_card_cheaper_than_its_hardware(pair: AgentAndLedger, call: str, code: int) -> None:
    pair.fake.gpus[0].run(1)
    pair.fake.gpus[0].fail(call, code)
    await pair.agent.reconciler.reconcile()
    await pair.decide(CAP_MW)
    await pair.agent.reconciler.reconcile()
    await pair.decide(CAP_MW - 50_000)
    assert all(charge >= enforced for charge, enforced in zip(pair.charged(), pair.fake.enforced, strict=True))
    assert pair.charged()[1] == pair.fake.enforced[1] == CAP_MW - 50_000
    kind = KINDS.get(code, DriverErrorKind.UNKNOWN)
    if call in ("get_limit", "enforced", "handle_by_uuid") and kind in QUARANTINE_KINDS | UNCAPPABLE_KINDS:
        assert pair.charged()[0] == DEFAULT_MW
    if call == "set_limit":
        assert pair.charged()[0] == DEFAULT_MW


async def test_success_without_effect_is_charged_as_it_stands(pair: AgentAndLedger) -> None:
    pair.fake.gpus[0].flags |= IGNORES_WRITES
    await pair.decide(CAP_MW)
    assert pair.charged() == [DEFAULT_MW, CAP_MW]


@pytest.mark.parametrize("code", [15, 16])
async def test_a_card_that_is_lost_under_a_low_cap_is_charged_at_its_default(pair: AgentAndLedger, code: int) -> None:
    await pair.decide(CAP_MW)
    pair.fake.gpus[0].fail("handle_by_uuid", code)
    await pair.agent.reconciler.reconcile()
    pair.ledger = ledgers.with_report(pair.ledger, from_wire.node(pair.telemetry(), age_s=0.0), pair.clock_s + 1.0)
    assert pair.charged() == [DEFAULT_MW, CAP_MW]


async def test_a_reset_is_charged_at_the_default_until_the_cap_is_proven_again(pair: AgentAndLedger) -> None:
    await pair.decide(CAP_MW)
    await pair.agent.reconciler.reconcile()
    pair.fake.gpus[0].reset()
    await pair.agent.hardware.read()
    pair.ledger = ledgers.with_report(pair.ledger, from_wire.node(pair.telemetry(), age_s=0.0), pair.clock_s + 1.0)
    assert pair.charged() == [DEFAULT_MW, CAP_MW]
    await pair.decide(CAP_MW)
    assert pair.fake.enforced == [CAP_MW, CAP_MW]
    assert pair.charged() == [CAP_MW, CAP_MW]
