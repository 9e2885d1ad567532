"""Limits of a profiling run: never above what was found, and what was found is put back, whatever happened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.drivers.simulated import SimulatedDriver
from agent.ports import DriverErrorKind
from deploy.profiling.held_limits import HeldLimitError, HeldLimits

FIRST, SECOND = "GPU-node-00", "GPU-node-01"


def held(driver: SimulatedDriver, folder: Path, owner: str = "a", before: str = "") -> HeldLimits:
    gpus = (FIRST, SECOND)
    return HeldLimits(driver, gpus, folder / "limits.json", owner=owner, before=before, pause=lambda _: None)


@pytest.fixture
def driver() -> SimulatedDriver:
    return SimulatedDriver.of("node", 2, clock=lambda: 0.0)


def enforced(driver: SimulatedDriver) -> list[int]:
    return [gpu.enforced_mw for gpu in driver.gpus.values()]


def test_what_was_found_is_put_back(tmp_path, driver):
    driver.set_limit(SECOND, 600_000)
    limits = held(driver, tmp_path)
    limits.set({FIRST: 400_000, SECOND: 500_000})
    limits.set({FIRST: 300_000})
    assert enforced(driver) == [300_000, 500_000]
    assert limits.restore() == ()
    assert enforced(driver) == [700_000, 600_000]
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_before_the_first_order_nor_for_a_limit_that_is_there(tmp_path, driver):
    limits = held(driver, tmp_path)
    limits.set({FIRST: 700_000})
    assert limits.restore() == ()
    assert driver.writes == []


@pytest.mark.parametrize(
    ("mw", "line"),
    [
        (650_000, r"GPU 1 \(NVIDIA H200\) has a limit of 600 W; a profile only lowers limits, and 650 W is above it"),
        (150_000, r"GPU 1 \(NVIDIA H200\) takes 200 to 700 W, not 150 W"),
    ],
)
def test_no_limit_is_raised_above_what_was_found_or_out_of_range(tmp_path, driver, mw, line):
    driver.set_limit(SECOND, 600_000)
    limits = held(driver, tmp_path)
    with pytest.raises(HeldLimitError, match=line):
        limits.set({FIRST: 400_000, SECOND: mw})
    assert enforced(driver) == [700_000, 600_000]


def test_a_second_writer_is_named_and_its_lower_limit_is_left(tmp_path, driver):
    limits = held(driver, tmp_path)
    limits.set({FIRST: 500_000, SECOND: 500_000})
    driver.set_limit(FIRST, 450_000)
    with pytest.raises(HeldLimitError, match=r"has a limit of 450 W where 500 W was set: another program sets limits"):
        limits.check({FIRST: 500_000})
    (line,) = limits.restore()
    assert line == "GPU 0 (NVIDIA H200): another program set 450 W meanwhile; it is left so (found: 700 W)"
    assert enforced(driver) == [450_000, 700_000]


@pytest.mark.parametrize("before", [{}, {FIRST: 500_000}], ids=["none was set before", "another was set before"])
def test_a_lower_limit_of_a_second_writer_is_not_raised_by_the_next_cap(tmp_path, driver, before):
    limits = held(driver, tmp_path)
    limits.set(before)
    driver.set_limit(FIRST, 300_000)
    written = len(driver.writes)
    with pytest.raises(HeldLimitError, match=r"has a limit of 300 W where \d+ W was set: another program sets limits"):
        limits.set({SECOND: 400_000, FIRST: 400_000})
    assert len(driver.writes) == written
    limits.restore()
    assert enforced(driver) == [300_000, 700_000]


def test_a_reset_to_a_higher_default_is_taken_back_to_what_was_found(tmp_path, driver):
    driver.set_limit(FIRST, 600_000)
    limits = held(driver, tmp_path)
    limits.set({FIRST: 500_000})
    driver.gpus[FIRST].reset(0.0)
    assert limits.restore() == ()
    assert enforced(driver) == [600_000, 700_000]


def test_another_limiter_is_named(tmp_path, driver):
    limits = held(driver, tmp_path)
    driver.gpus[FIRST].limit_elsewhere(350_000)
    with pytest.raises(HeldLimitError, match=r"enforces 350 W where 400 W was set: another limiter"):
        limits.set({FIRST: 400_000})


def test_a_gpu_that_fails_does_not_keep_the_others_from_being_put_back(tmp_path, driver):
    limits = held(driver, tmp_path)
    limits.set({FIRST: 400_000, SECOND: 400_000})
    driver.gpus[FIRST].faults["set_limit"] = DriverErrorKind.GPU_LOST
    (line,) = limits.restore()
    assert line.startswith("GPU 0 (NVIDIA H200): 700 W could not be put back: GPU 0 (NVIDIA H200): 700 W cannot be set")
    assert enforced(driver) == [400_000, 700_000]
    assert (tmp_path / "limits.json").exists()


def test_the_next_run_puts_back_what_one_that_was_killed_had_found(tmp_path, driver):
    held(driver, tmp_path, owner="killed").set({FIRST: 400_000, SECOND: 400_000})
    limits = held(driver, tmp_path, owner="next", before="killed")
    assert limits.found_mw == {FIRST: 700_000, SECOND: 700_000}
    assert limits.restore() == ()
    assert enforced(driver) == [700_000, 700_000]


@pytest.mark.parametrize("between", ["before its name was in the lock", "before it set a limit"])
def test_a_run_that_is_killed_as_well_leaves_what_the_one_before_had_found(tmp_path, driver, between):
    held(driver, tmp_path, owner="killed").set({FIRST: 400_000, SECOND: 400_000})
    held(driver, tmp_path, owner="next", before="killed")
    before = "next" if between == "before it set a limit" else "killed"
    assert held(driver, tmp_path, owner="third", before=before).restore() == ()
    assert enforced(driver) == [700_000, 700_000]


@pytest.mark.parametrize("change", ["another had the lock", "another limit", "the machine started again"])
def test_what_may_be_another_writers_limit_is_not_raised(tmp_path, driver, change):
    held(driver, tmp_path, owner="killed").set({FIRST: 400_000, SECOND: 400_000})
    before = "killed"
    if change == "another had the lock":
        before = "an agent"
    elif change == "another limit":
        driver.set_limit(FIRST, 300_000)
        driver.set_limit(SECOND, 300_000)
    else:
        file = tmp_path / "limits.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "an earlier one"}))
    now = enforced(driver)
    limits = held(driver, tmp_path, before=before)
    assert list(limits.found_mw.values()) == now
    assert limits.restore() == ()
    assert enforced(driver) == now


def test_a_file_that_cannot_be_read_is_refused(tmp_path, driver):
    for content in ("{", "[]", "{}"):
        (tmp_path / "limits.json").write_text(content)
        with pytest.raises(HeldLimitError, match=r"limits\.json: "):
            held(driver, tmp_path)
    assert driver.writes == []


def test_a_gpu_that_is_not_there(tmp_path, driver):
    with pytest.raises(HeldLimitError, match="no GPU GPU-x answers on this node"):
        HeldLimits(driver, ("GPU-x",), tmp_path / "limits.json", owner="a", before="")
