"""Simulated GPUs in files: limit, draw and energy as seen from two processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.engine.engine_gpus import EngineGpus, shared_gpus
from deploy.engine.shared_gpu import NoSharedGpuError, SharedGpu, make_shared_gpu
from planner.adapters.power_priors import curve, gpu, phase_of
from planner.domain.pool import Role
from planner.sim.cluster.sim_gpu import H200

NAME = "GPU-node-0-00"


class SetClock:
    """A clock that tests set."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def pair(folder: Path, clock: SetClock) -> tuple[SharedGpu, SharedGpu]:
    file = make_shared_gpu(folder, NAME, H200, H200.min_mw, clock.now_s)
    return SharedGpu(file, clock), SharedGpu(file, clock)


def test_a_limit_that_one_process_sets_is_in_force_for_the_other(tmp_path):
    engine, agent = pair(tmp_path, SetClock())
    assert engine.limit_mw == H200.min_mw
    assert agent.set_limit(450_000) == 450_000
    assert engine.limit_mw == 450_000
    assert agent.set_limit(9_000_000) == H200.max_mw
    assert engine.limit_mw == engine.read().enforced_mw == H200.max_mw
    engine.close()
    agent.close()


def test_draw_and_energy_follow_from_the_load_whoever_reads(tmp_path):
    clock = SetClock()
    engine, agent = pair(tmp_path, clock)
    agent.set_limit(500_000)
    engine.set_load(600_000)
    clock.now_s += 10
    assert agent.read().draw_mw == pytest.approx(500_000, rel=1e-3)
    before_mj = agent.read().energy_mj
    clock.now_s += 2
    assert engine.read().energy_mj - before_mj == pytest.approx(2 * 500_000, rel=1e-3)
    engine.release()
    clock.now_s += 10
    assert agent.read().draw_mw == pytest.approx(H200.idle_mw, rel=1e-3)
    engine.close()
    agent.close()


def test_a_gpu_whose_engine_was_killed_is_idle(tmp_path):
    clock = SetClock()
    _, agent = pair(tmp_path, clock)
    work = (
        "import os, pathlib, signal, sys; from deploy.engine.shared_gpu import SharedGpu\n"
        "SharedGpu(pathlib.Path(sys.argv[1]), lambda: 100.0).set_load(650_000)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", work, tmp_path / f"{NAME}.gpu"], check=False, timeout=60)
    assert agent.read().load_mw == H200.idle_mw
    clock.now_s += 10
    assert agent.read().draw_mw == pytest.approx(H200.idle_mw, rel=1e-3)


def test_a_file_from_before_the_machine_started_again_goes_on(tmp_path):
    clock = SetClock()
    _, agent = pair(tmp_path, clock)
    clock.now_s = 1.0
    agent.set_load(500_000)
    agent.set_limit(H200.max_mw)
    clock.now_s = 20.0
    assert agent.read().draw_mw == pytest.approx(500_000, rel=1e-3)


def test_gpus_are_named_by_uuid_or_place_and_others_are_refused(tmp_path):
    clock = SetClock()
    for index in range(3):
        make_shared_gpu(tmp_path, f"GPU-{index}", H200, H200.max_mw, clock.now_s)
    assert [one.uuid for one in shared_gpus(tmp_path, ["GPU-2", "0"], clock)] == ["GPU-2", "GPU-0"]
    with pytest.raises(NoSharedGpuError, match="no GPU '3' here; there are GPU-0, GPU-1, GPU-2"):
        shared_gpus(tmp_path, ["3"], clock)
    with pytest.raises(NoSharedGpuError, match="names no GPU"):
        shared_gpus(tmp_path, [], clock)
    (tmp_path / "GPU-9.gpu").write_bytes(b"something else" * 20)
    with pytest.raises(NoSharedGpuError, match=r"GPU-9\.gpu: not a shared GPU"):
        shared_gpus(tmp_path, ["GPU-9"], clock)


def test_an_engine_is_as_fast_as_its_slowest_gpu_and_a_cap_above_the_draw_costs_nothing(tmp_path):
    clock = SetClock()
    for index in range(2):
        make_shared_gpu(tmp_path, f"GPU-{index}", H200, H200.max_mw, clock.now_s)
    gpus = shared_gpus(tmp_path, ["0", "1"], clock)
    kind = gpu("h200")
    engine = EngineGpus(gpus, curve(kind, phase_of(Role.PREFILL)))
    assert engine.speed(1.0) == 1.0
    gpus[1].set_limit(400_000)
    slow = engine.speed(1.0)
    assert 0.3 < slow < 0.9
    assert engine.speed(0.3) > slow
    assert engine.speed(0.0) == 1.0
    assert gpus[0].read().load_mw == H200.idle_mw
    engine.release()
