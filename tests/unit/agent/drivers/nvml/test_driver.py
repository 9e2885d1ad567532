"""The NVML driver through the real ``pynvml`` and a library with NVML's ABI: every call, every error."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.drivers.nvml.driver import NvmlDriver
from agent.drivers.nvml.errors import KINDS
from agent.ports import DRIVER_WIDE_KINDS, QUARANTINE_KINDS, UNCAPPABLE_KINDS, DriverError, DriverErrorKind
from tests.doubles.nvml.loaded import library_environment, loaded_nvml
from tests.doubles.nvml.state import (
    CLAMPS,
    HAS_MODULE,
    IGNORES_WRITES,
    LOST,
    NO_INSTANT_FIELD,
    NO_POWER_FIELDS,
    FakeNvml,
)

ALL_ERRORS = [*range(1, 31), 999]
MUST = {
    "handle_by_index": "enumerate",
    "uuid": "enumerate",
    "constraints": "enumerate",
    "default": "enumerate",
    "handle_by_uuid": "read",
    "get_limit": "read",
    "enforced": "read",
    "set_limit": "set_limit",
}
"""NVML calls without which the driver's call (right) has no answer."""
GOOD_TO_KNOW = ("power_usage", "energy", "processes", "reasons")


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeNvml]:
    with loaded_nvml(tmp_path) as fake:
        yield fake


@pytest.fixture
def driver(fake: FakeNvml) -> Iterator[NvmlDriver]:
    driver = NvmlDriver()
    yield driver
    for call in ("shutdown", "init"):
        fake.fail(call, 0)
    driver.close()


def _do(driver: NvmlDriver, what: str, gpu: str) -> None:
    if what == "read":
        driver.read(gpu)
    elif what == "set_limit":
        driver.set_limit(gpu, 300_000)


def test_cards_are_described_by_uuid(driver: NvmlDriver, fake: FakeNvml) -> None:
    fake.gpus[1].mig = 1
    fake.gpus[1].persistence = 0
    first, second = driver.enumerate()
    assert [first.gpu, second.gpu] == fake.uuids
    assert (first.default_mw, first.min_mw, first.max_mw) == (700_000, 200_000, 700_000)
    assert (first.model, first.mig, first.persistence) == ("NVIDIA H200", False, True)
    assert (second.mig, second.persistence) == (True, False)
    assert driver.driver_version() == "580.65.06"


def test_a_reading_has_limits_draw_energy_reasons_and_processes(driver: NvmlDriver, fake: FakeNvml) -> None:
    gpu = fake.gpus[0]
    gpu.gpu.requested, gpu.gpu.enforced, gpu.instant_mw, gpu.reasons = 400_000, 350_000, 333_000, 0x4 | 0x40
    gpu.run(4242, 17)
    reading = driver.read(fake.uuids[0])
    assert (reading.requested_mw, reading.enforced_mw, reading.draw_mw) == (400_000, 350_000, 333_000)
    assert reading.throttle_reasons == ("sw_power_cap", "hw_thermal_slowdown")
    assert reading.pids == (17, 4242)
    assert reading.energy_mj == 1_000_000


def test_the_average_field_and_then_the_older_call_are_the_fall_backs(driver: NvmlDriver, fake: FakeNvml) -> None:
    fake.gpus[0].flags |= NO_INSTANT_FIELD
    fake.gpus[0].average_mw = 79_000
    assert driver.read(fake.uuids[0]).draw_mw == 79_000
    fake.gpus[0].flags |= NO_POWER_FIELDS
    assert driver.read(fake.uuids[0]).draw_mw == 80_000


def test_a_limit_is_set_on_the_card_with_that_uuid_even_after_a_renumbering(driver: NvmlDriver, fake: FakeNvml) -> None:
    driver.enumerate()
    fake.renumber(1, 0)
    driver.set_limit(fake.uuids[0], 300_000)
    assert fake.enforced == [300_000, 700_000]


def test_a_handle_that_answers_as_another_card_is_not_written_to(
    driver: NvmlDriver, fake: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pynvml

    look_up = pynvml.nvmlDeviceGetHandleByUUID

    def renumbered_meanwhile(uuid: str) -> object:
        handle = look_up(uuid)
        fake.renumber(1, 0)
        return handle

    driver.enumerate()
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", renumbered_meanwhile)
    with pytest.raises(DriverError, match="now answers as") as caught:
        driver.set_limit(fake.uuids[0], 300_000)
    assert caught.value.kind is DriverErrorKind.NO_SUCH_GPU
    assert fake.enforced == [700_000, 700_000]


def test_success_without_effect_shows_in_the_reading(driver: NvmlDriver, fake: FakeNvml) -> None:
    fake.gpus[0].flags |= IGNORES_WRITES
    driver.set_limit(fake.uuids[0], 300_000)
    assert driver.read(fake.uuids[0]).enforced_mw == 700_000


def test_a_clamp_shows_in_the_reading(driver: NvmlDriver, fake: FakeNvml) -> None:
    fake.gpus[0].flags |= CLAMPS
    driver.set_limit(fake.uuids[0], 100_000)
    assert driver.read(fake.uuids[0]).enforced_mw == 200_000


def test_an_energy_counter_that_goes_back_is_a_reset(driver: NvmlDriver, fake: FakeNvml) -> None:
    assert driver.read(fake.uuids[0]).resets == 0
    fake.gpus[0].reset()
    assert driver.read(fake.uuids[0]).resets == 1
    assert driver.read(fake.uuids[0]).resets == 1


def test_mig_instances_are_reported_with_their_card(driver: NvmlDriver, fake: FakeNvml) -> None:
    fake.gpus[1].split("MIG-aaaa", "MIG-bbbb")
    first, second = driver.enumerate()
    assert (first.mig_instances, second.mig_instances) == ((), ("MIG-aaaa", "MIG-bbbb"))


def test_an_xid_is_kept_by_card(driver: NvmlDriver, fake: FakeNvml) -> None:
    driver.enumerate()
    fake.event(1, 0x8, 79)
    assert driver.read(fake.uuids[0]).last_xid is None
    assert driver.read(fake.uuids[1]).last_xid == 79


def test_the_module_scope_is_used_where_the_card_has_one(driver: NvmlDriver, fake: FakeNvml) -> None:
    gpu = fake.gpus[0]
    gpu.flags |= HAS_MODULE
    gpu.module.standard = gpu.module.max = gpu.module.requested = gpu.module.enforced = 1_000_000
    first, second = driver.enumerate()
    assert (first.max_mw, second.max_mw) == (1_000_000, 700_000)
    driver.set_limit(fake.uuids[0], 800_000)
    assert (gpu.module.enforced, gpu.gpu.enforced) == (800_000, 700_000)
    assert driver.read(fake.uuids[0]).enforced_mw == 800_000


@pytest.mark.parametrize("code", ALL_ERRORS)
def test_the_scoped_write_reports_its_error(driver: NvmlDriver, fake: FakeNvml, code: int) -> None:
    fake.gpus[0].flags |= HAS_MODULE
    driver.enumerate()
    fake.gpus[0].fail("set_limit_v2", code)
    with pytest.raises(DriverError) as caught:
        driver.set_limit(fake.uuids[0], 300_000)
    assert caught.value.kind is KINDS.get(code, DriverErrorKind.UNKNOWN)


@pytest.mark.parametrize("code", ALL_ERRORS)
@pytest.mark.parametrize("call", MUST)
def test_an_error_of_a_call_that_matters_names_its_kind_and_leaves_the_other_card_alone(
    driver: NvmlDriver, fake: FakeNvml, call: str, code: int
) -> None:
    driver.enumerate()
    sick, sound = fake.uuids
    fake.gpus[0].fail(call, code)
    kind = KINDS.get(code, DriverErrorKind.UNKNOWN)
    if call == "constraints" and kind in UNCAPPABLE_KINDS:
        uncappable = driver.enumerate()[0]
        assert (uncappable.min_mw, uncappable.max_mw) == (700_000, 700_000)
    elif MUST[call] == "enumerate" and kind not in DRIVER_WIDE_KINDS:
        assert [info.gpu for info in driver.enumerate()] == [sound]
        assert [error.kind for error in driver.failed().values()] == [kind]
    else:
        with pytest.raises(DriverError) as caught:
            driver.enumerate() if MUST[call] == "enumerate" else _do(driver, MUST[call], sick)
        assert caught.value.kind is kind
        assert caught.value.permanent == (kind in UNCAPPABLE_KINDS)
    driver.set_limit(sound, 250_000)
    assert driver.read(sound).enforced_mw == 250_000
    assert fake.enforced[0] == 700_000


@pytest.mark.parametrize("code", ALL_ERRORS)
@pytest.mark.parametrize("call", GOOD_TO_KNOW)
def test_an_error_of_a_call_that_is_good_to_know_leaves_a_gap_unless_the_card_is_gone(
    driver: NvmlDriver, fake: FakeNvml, call: str, code: int
) -> None:
    driver.enumerate()
    gpu = fake.gpus[0]
    gpu.flags |= NO_POWER_FIELDS
    gpu.run(1)
    gpu.fail(call, code)
    kind = KINDS.get(code, DriverErrorKind.UNKNOWN)
    if kind in QUARANTINE_KINDS | DRIVER_WIDE_KINDS:
        with pytest.raises(DriverError) as caught:
            driver.read(fake.uuids[0])
        assert caught.value.kind is kind
        return
    reading = driver.read(fake.uuids[0])
    assert reading.enforced_mw == 700_000
    absent = {"power_usage": reading.draw_mw, "energy": reading.energy_mj, "processes": reading.pids}.get(call)
    assert absent is None


@pytest.mark.parametrize("code", ALL_ERRORS)
def test_an_error_at_the_start_is_one_error_and_a_later_start_works(fake: FakeNvml, code: int) -> None:
    driver = NvmlDriver()
    fake.fail("init", code)
    with pytest.raises(DriverError) as caught:
        driver.enumerate()
    assert caught.value.kind is KINDS.get(code, DriverErrorKind.UNKNOWN)
    fake.fail("init", 0)
    assert len(driver.enumerate()) == 2
    driver.close()


def test_a_driver_that_went_away_is_opened_anew(driver: NvmlDriver, fake: FakeNvml) -> None:
    driver.enumerate()
    fake.fail("count", 1)
    with pytest.raises(DriverError) as caught:
        driver.enumerate()
    assert caught.value.kind is DriverErrorKind.DRIVER_DOWN
    fake.fail("count", 0)
    before = fake.calls("init")
    assert len(driver.enumerate()) == 2
    assert fake.calls("init") == before + 1


def test_a_lost_card_is_lost_on_every_call(driver: NvmlDriver, fake: FakeNvml) -> None:
    driver.enumerate()
    fake.gpus[0].flags |= LOST
    for what in ("read", "set_limit"):
        with pytest.raises(DriverError) as caught:
            _do(driver, what, fake.uuids[0])
        assert caught.value.kind is DriverErrorKind.GPU_LOST
    assert [info.gpu for info in driver.enumerate()] == [fake.uuids[1]]


def test_no_function_beyond_the_documented_ones_is_needed_on_an_older_driver(fake: FakeNvml) -> None:
    fake.gpus[0].run(99)
    program = """
import json
from agent.drivers.nvml.driver import NvmlDriver
driver = NvmlDriver()
info = driver.enumerate()[0]
driver.set_limit(info.gpu, 300000)
reading = driver.read(info.gpu)
print(json.dumps([info.mig, reading.enforced_mw, reading.draw_mw, reading.pids, reading.throttle_reasons]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=library_environment(fake, "-DOLD_DRIVER"),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == [False, 300_000, 80_000, [99], ["gpu_idle"]]
