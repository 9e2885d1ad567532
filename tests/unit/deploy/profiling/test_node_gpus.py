"""Which GPUs of a node may be profiled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.profiling.node_gpus import NodeGpu, NoGpuError, tp_sizes, usable

GPUS = tuple(NodeGpu(index, f"GPU-{index}", "H200", False, ()) for index in range(4))


def test_all_or_those_that_are_named() -> None:
    assert usable(GPUS, None, engine_runs=False) == GPUS
    assert usable(GPUS, (3, 1), engine_runs=False) == (GPUS[3], GPUS[1])


def test_what_cannot_be_profiled_is_refused_in_a_line() -> None:
    shared = (GPUS[0], replace(GPUS[1], tenants=(4711,)))
    for gpus, wanted, line in (
        ((), None, "no GPU on this node"),
        (GPUS, (4,), "no GPU 4 on this node; it has 0 to 3"),
        ((replace(GPUS[0], mig=True),), None, r"GPU 0 \(H200\) is divided by MIG"),
        (shared, None, r"GPU 1 \(H200\) has other tenants \(process 4711\); end them, or name free GPUs"),
    ):
        with pytest.raises(NoGpuError, match=line):
            usable(gpus, wanted, engine_runs=False)
    assert usable(shared, (0,), engine_runs=False) == (GPUS[0],)
    assert usable(shared, None, engine_runs=True) == shared


def test_tp_sizes_are_powers_of_two() -> None:
    assert tp_sizes(1) == (1,)
    assert tp_sizes(6) == (1, 2, 4)
    assert tp_sizes(8) == (1, 2, 4, 8)
