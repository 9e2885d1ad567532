"""The script for real GPUs, on the library with NVML's ABI: it reports, and it cannot write."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doubles.nvml.loaded import loaded_nvml
from tests.gpu.read_only import ReadOnlyDriver, read_gpus


def test_it_reports_every_card_and_writes_nothing(tmp_path: Path) -> None:
    with loaded_nvml(tmp_path) as fake:
        found = read_gpus(0.01)
        assert [gpu["info"]["gpu"] for gpu in found["gpus"]] == fake.uuids
        assert found["driver"] == "580.65.06"
        assert (fake.calls("set_limit"), fake.calls("set_limit_v2")) == (0, 0)


def test_its_driver_has_no_write(tmp_path: Path) -> None:
    with loaded_nvml(tmp_path) as fake, pytest.raises(AssertionError, match="nothing may be set"):
        ReadOnlyDriver().set_limit(fake.uuids[0], 300_000)
