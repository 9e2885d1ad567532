"""Processes from files that look like ``/proc``: names that mislead, numbers that are given away again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.drivers.procfs import ProcFs

UID, CID = "0b7632a2-a56e-4278-987a-22de18008dbe", "9" * 64


def process(
    root: Path, pid: int, start: int = 4711, group: str = f"0::/kubepods/pod{UID}/{CID}", name: str = "python"
) -> None:
    folder = root / str(pid)
    folder.mkdir(exist_ok=True)
    fields = " ".join(["S", *["1"] * 18, str(start), *["2"] * 30])
    (folder / "stat").write_text(f"{pid} ({name}) {fields}\n")
    (folder / "cgroup").write_text(group + "\n")


@pytest.mark.parametrize("name", ["python", "a b", "x) S 1 1", "((("])
def test_the_pod_and_the_start_time_are_read_whatever_the_process_calls_itself(tmp_path: Path, name: str) -> None:
    process(tmp_path, 7, name=name)
    found = ProcFs(tmp_path).process(7)
    assert found is not None
    assert (found.start_ticks, found.cgroup.pod_uid) == (4711, UID)


def test_a_number_that_another_process_took_is_another_process(tmp_path: Path) -> None:
    procfs = ProcFs(tmp_path)
    process(tmp_path, 7)
    assert procfs.process(7) is not None
    process(tmp_path, 7, start=9000, group="0::/user.slice")
    found = procfs.process(7)
    assert found is not None
    assert (found.start_ticks, found.cgroup.pod_uid) == (9000, None)


def test_a_number_that_changes_hands_while_it_is_read_is_unowned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    procfs = ProcFs(tmp_path)
    process(tmp_path, 7)
    starts = iter([1, 2])
    monkeypatch.setattr(ProcFs, "start_ticks", lambda self, pid: next(starts))
    assert procfs.process(7) is None


def test_a_process_that_is_gone_or_unreadable_is_none(tmp_path: Path) -> None:
    procfs = ProcFs(tmp_path)
    assert procfs.process(7) is None
    process(tmp_path, 7)
    (tmp_path / "7" / "stat").write_text("garbage")
    assert procfs.process(7) is None


def test_this_very_process_is_read_from_the_real_proc() -> None:
    found = ProcFs().process(os.getpid())
    assert found is not None
    assert found.start_ticks > 0


def test_the_hosts_process_namespace_is_recognised_by_its_kernel_threads(tmp_path: Path) -> None:
    assert not ProcFs(tmp_path).shows_host()
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "comm").write_text("kthreadd\n")
    assert ProcFs(tmp_path).shows_host()
