"""Every NVML error by call, from the C library through the real bindings to the answer on the bus.

What a planner's ledger would charge follows from the health: anything but ``ok`` is charged at the card's default.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.core.caps import CapDecision, Health
from agent.drivers.nvml.driver import NvmlDriver
from agent.drivers.nvml.errors import KINDS
from agent.drivers.off_loop import OffLoopDriver
from agent.ports import QUARANTINE_KINDS, UNCAPPABLE_KINDS, DriverErrorKind, GpuOwner, NoOwners, monotonic
from agent.runtime.hardware import Hardware
from agent.runtime.reconciler import Reconciler
from agent.runtime.service import LibraryMismatchError, PowerAgentService
from agent.runtime.settings import PowerAgentSettings
from bus_schemas.v1 import AckStatus, GpuHealth
from tests.contract.bus import until
from tests.doubles.nvml.loaded import loaded_nvml
from tests.doubles.nvml.state import FUNCTIONS, IGNORES_WRITES, FakeNvml
from tests.integration.agent.server import NatsServer
from tests.integration.agent.wire import PlannerSide, connected, target

ERRORS = [*range(1, 31), 999]
NODE = "n1"
HANG_MS = 60_000
PATIENT_S = 30.0
"""Until the test ends it: what happens meanwhile has waited neither for the call nor for its time-out."""


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeNvml]:
    with loaded_nvml(tmp_path) as fake:
        yield fake


@pytest.fixture
async def reconciler(fake: FakeNvml) -> AsyncIterator[Reconciler]:
    driver = OffLoopDriver(NvmlDriver(), timeout_s=30.0)
    made = Reconciler(Hardware(driver), monotonic, "boot/1", grace_s=600.0, hold=False)
    made.hardware.read_patience_s = made.hardware.write_patience_s = PATIENT_S
    await made.start()
    yield made
    await driver.close()


def expected_health(code: int) -> Health:
    """What each NVML error means for the card it was met on."""
    kind = KINDS.get(code, DriverErrorKind.UNKNOWN)
    if kind in UNCAPPABLE_KINDS:
        return Health.UNCAPPABLE
    return Health.QUARANTINED if kind in QUARANTINE_KINDS else Health.UNKNOWN


async def cut(reconciler: Reconciler, fake: FakeNvml, number: int = 0) -> dict[str, Health]:
    """A decision for both cards; the health by card in what is reported."""
    caps = tuple(target(gpu, 400_000, 200_000) for gpu in fake.uuids)
    await reconciler.decide(CapDecision(1, number, "one", 60.0, caps))
    report = await reconciler.reconcile()
    return {gpu.gpu: gpu.health for gpu in report.gpus}


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("call", ["get_limit", "enforced", "handle_by_uuid"])
async def test_a_card_that_cannot_be_read_is_not_vouched_for_and_the_other_is_capped(
    reconciler: Reconciler, fake: FakeNvml, call: str, code: int
) -> None:
    fake.gpus[0].fail(call, code)
    await reconciler.reconcile()
    health = await cut(reconciler, fake)
    sick, sound = fake.uuids
    assert health == {sick: expected_health(code), sound: Health.OK}
    assert fake.enforced == [700_000, 400_000]
    report = reconciler.report()
    assert (report.status, report.applied_id) == ("partial", -1)
    assert next(gpu.enforced_mw for gpu in report.gpus if gpu.gpu == sick) is None


@pytest.mark.parametrize("code", ERRORS)
async def test_a_card_that_refuses_limits_is_reported_at_what_is_in_force(
    reconciler: Reconciler, fake: FakeNvml, code: int
) -> None:
    fake.gpus[0].fail("set_limit", code)
    health = await cut(reconciler, fake)
    sick, sound = fake.uuids
    assert fake.enforced == [700_000, 400_000]
    assert health[sound] is Health.OK
    # A refused write says nothing about reading: only what is permanent changes the health.
    assert health[sick] is (Health.UNCAPPABLE if expected_health(code) is Health.UNCAPPABLE else Health.OK)
    report = reconciler.report()
    assert report.status == "partial"
    assert {gpu.gpu: gpu.enforced_mw for gpu in report.gpus} == {sick: 700_000, sound: 400_000}


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("call", ["power_usage", "energy", "processes", "reasons", "mig", "persistence", "event_wait"])
async def test_what_is_only_good_to_know_never_keeps_a_cap_from_being_set(
    reconciler: Reconciler, fake: FakeNvml, call: str, code: int
) -> None:
    fake.gpus[0].run(1)
    fake.gpus[0].fail(call, code)
    if call == "event_wait":
        fake.fail(call, code)
    await cut(reconciler, fake)
    assert fake.enforced[1] == 400_000
    lost = expected_health(code) is Health.QUARANTINED or KINDS.get(code) in (
        DriverErrorKind.DRIVER_DOWN,
        DriverErrorKind.LIBRARY_MISMATCH,
    )
    if not lost:
        assert fake.enforced[0] == 400_000


@pytest.mark.parametrize("code", [10, 27, 15, 16, 999])
async def test_a_card_that_recovers_gets_its_cap(reconciler: Reconciler, fake: FakeNvml, code: int) -> None:
    fake.gpus[0].fail("enforced", code)
    await reconciler.reconcile()
    await cut(reconciler, fake)
    assert fake.enforced == [700_000, 400_000]
    fake.gpus[0].fail("enforced", 0)
    await reconciler.reconcile()
    assert fake.enforced == [400_000, 400_000]
    assert reconciler.report().status == "applied"


async def test_success_without_effect_is_not_called_applied(reconciler: Reconciler, fake: FakeNvml) -> None:
    fake.gpus[0].flags |= IGNORES_WRITES
    await cut(reconciler, fake)
    report = reconciler.report()
    assert report.status == "partial"
    assert {gpu.gpu: gpu.enforced_mw for gpu in report.gpus}[fake.uuids[0]] == 700_000


async def test_a_hung_card_is_reported_not_waited_for(fake: FakeNvml) -> None:
    driver = OffLoopDriver(NvmlDriver(), timeout_s=3.0)
    reconciler = Reconciler(Hardware(driver), monotonic, "boot/1", grace_s=600.0, hold=False)
    await reconciler.start()
    fake.gpus[0].hang("get_limit", HANG_MS)
    health = await asyncio.wait_for(cut(reconciler, fake), 30)
    assert health == {fake.uuids[0]: Health.UNKNOWN, fake.uuids[1]: Health.OK}
    assert fake.enforced[1] == 400_000
    await until(lambda: driver.hung == {fake.uuids[0]}, "the call to be given up")
    fake.gpus[0].hang("get_limit", 0)

    async def settled() -> bool:
        return (await reconciler.reconcile()).status == "applied"

    async with asyncio.timeout(30):
        while not await settled():
            await asyncio.sleep(0.05)
    assert fake.enforced == [400_000, 400_000]
    await driver.close()


@pytest.mark.parametrize("call", ["get_limit", "set_limit"])
async def test_a_cut_does_not_wait_for_a_slow_card(fake: FakeNvml, call: str) -> None:
    driver = OffLoopDriver(NvmlDriver(), timeout_s=HANG_MS / 1000)
    reconciler = Reconciler(Hardware(driver), monotonic, "boot/1", grace_s=600.0, hold=False)
    # With this patience a look at all cards takes as long as the slow one, and a cut that waited for it as well.
    reconciler.hardware.read_patience_s = HANG_MS / 1000
    await reconciler.start()
    calls = fake.calls(call)
    fake.gpus[0].hang(call, HANG_MS)
    looking = asyncio.create_task(reconciler.reconcile())
    if call == "get_limit":
        await until(lambda: fake.calls(call) >= calls + 2, "the look to hang")
    caps = tuple(target(gpu, 400_000, 200_000) for gpu in fake.uuids)
    deciding = asyncio.create_task(reconciler.decide(CapDecision(1, 0, "one", 60.0, caps)))
    await until(lambda: fake.enforced[1] == 400_000, "the cut of the sound card")
    _, report = await asyncio.wait_for(deciding, 30)
    assert call != "get_limit" or not looking.done(), "the cut was made while the look was waiting"
    assert {gpu.gpu: gpu.health for gpu in report.gpus}[fake.uuids[0]] is Health.UNKNOWN
    fake.gpus[0].hang(call, 0)
    await looking
    async with asyncio.timeout(30):
        while (await reconciler.reconcile()).status != "applied":
            await asyncio.sleep(0.05)
    assert fake.enforced == [400_000, 400_000]
    await driver.close()


async def test_the_dead_man_acts_in_time_while_a_card_the_driver_and_the_owners_hang(fake: FakeNvml) -> None:
    class Never:
        async def owners(self) -> dict[str, GpuOwner]:
            await asyncio.Event().wait()
            return {}

    lease_s, timeout_s = 3.0, HANG_MS / 1000
    settings = PowerAgentSettings(
        node=NODE, telemetry_interval_s=0.1, reconcile_interval_s=0.5, call_timeout_s=timeout_s
    )
    service = PowerAgentService(settings, None, NvmlDriver(), Never())
    task = asyncio.create_task(service.run())
    looks = service.hardware.snapshots
    await until(lambda: [look.reading is not None for look in looks.values()] == [True, True], "a look at the cards")
    caps = tuple(target(gpu, 600_000, 250_000) for gpu in fake.uuids)
    began = asyncio.get_running_loop().time()
    await service.reconciler.decide(CapDecision(1, 0, "one", lease_s, caps))
    fake.gpus[0].hang("energy", HANG_MS)
    fake.state.hang_ms[FUNCTIONS.index("count")] = HANG_MS
    # Neither the calls nor their time-outs are over by then.
    await until(lambda: fake.enforced[1] == 250_000, "the fallback of the sound card", timeout_s / 2)
    assert asyncio.get_running_loop().time() - began >= lease_s
    assert [asked for slot, asked, _ in fake.writes if slot == 1] == [600_000, 250_000]
    fake.gpus[0].hang("energy", 0)
    fake.state.hang_ms[FUNCTIONS.index("count")] = 0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_renumbered_cards_keep_their_caps(reconciler: Reconciler, fake: FakeNvml) -> None:
    caps = (
        target(fake.uuids[0], 300_000, 200_000),
        target(fake.uuids[1], 500_000, 200_000),
    )
    fake.renumber(1, 0)
    await reconciler.decide(CapDecision(1, 0, "one", 60.0, caps))
    assert fake.enforced == [300_000, 500_000]
    await reconciler.hardware.discover()
    await reconciler.reconcile()
    assert fake.enforced == [300_000, 500_000]


async def test_a_card_that_is_no_longer_enumerated_stays_on_the_books(reconciler: Reconciler, fake: FakeNvml) -> None:
    await cut(reconciler, fake)
    fake.state.count = 1
    await reconciler.hardware.discover()
    await reconciler.reconcile()
    health = {gpu.gpu: gpu.health for gpu in reconciler.report().gpus}
    assert health == {fake.uuids[0]: Health.OK, "GPU-00000001-0000-0000-0000-000000000000": Health.QUARANTINED}


async def test_a_driver_reload_is_noticed_and_the_caps_are_set_again(reconciler: Reconciler, fake: FakeNvml) -> None:
    await cut(reconciler, fake)
    for gpu in fake.gpus:
        gpu.reset()
    await reconciler.reconcile()
    assert fake.enforced == [400_000, 400_000]
    assert reconciler.counts.resets == 2


@pytest.mark.parametrize(
    ("code", "health"), [(15, GpuHealth.QUARANTINED), (4, GpuHealth.UNCAPPABLE), (10, GpuHealth.UNKNOWN)]
)
async def test_the_answer_on_the_bus_names_the_card_and_the_error(
    tmp_path: Path, fake: FakeNvml, code: int, health: GpuHealth
) -> None:
    async with NatsServer(tmp_path / "nats") as server, connected(server.url) as bus:
        planner = PlannerSide(bus, NODE)
        await planner.prepare()
        settings = PowerAgentSettings(node=NODE, telemetry_interval_s=0.1)
        service = PowerAgentService(settings, bus, NvmlDriver(), NoOwners())
        task = asyncio.create_task(service.run())
        await planner.telemetry_where(lambda telemetry: len(telemetry.gpus) == 2)
        fake.gpus[0].fail("enforced", code)
        await until(lambda: service.hardware.snapshots[fake.uuids[0]].error is not None, "the error")
        await planner.decide(dict.fromkeys(fake.uuids, 400.0))
        ack = await planner.answered(lambda ack: ack.decision_id == 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    sick, sound = ack.gpus
    assert (ack.status, sick.health, sick.enforced_watts) == (AckStatus.PARTIAL, health, None)
    assert f"NVML {code}" in sick.reason
    assert (sound.health, sound.enforced_watts) == (GpuHealth.OK, 400.0)


async def test_a_library_that_does_not_fit_the_driver_ends_the_agent(fake: FakeNvml) -> None:
    fake.fail("count", 18)
    service = PowerAgentService(PowerAgentSettings(node=NODE), None, NvmlDriver(), NoOwners())
    with pytest.raises(LibraryMismatchError):
        await service.run()
