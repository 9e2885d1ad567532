"""Reads a profile with Dynamo's own code and prints what it makes of it as JSON. Runs in Dynamo's environments only.

python -m tests.contract.dynamo.read_profile 0.9.1 FOLDER     interpolated values at the points that stdin names
python -m tests.contract.dynamo.read_profile 1.6.1 FOLDER     the forward passes of each phase
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def interpolated(folder: str, asked: dict[str, Any]) -> dict[str, Any]:
    """0.9.1's interpolators at input lengths, and at pairs of requests and context."""
    from tests.contract.dynamo.published_core import _stand_ins

    _stand_ins()
    module = importlib.import_module("dynamo.planner.utils.perf_interpolation")
    prefill, decode = module.PrefillInterpolator(folder), module.DecodeInterpolator(folder)
    return {
        "ttft": [float(prefill.interpolate_ttft(isl)) for isl in asked["isl"]],
        "prefill_rate": [float(prefill.interpolate_thpt_per_gpu(isl)) for isl in asked["isl"]],
        "itl": [float(decode.interpolate_itl(n, context)) for n, context in asked["decode"]],
    }


def forward_passes(folder: str) -> dict[str, Any]:
    """1.6.1's forward passes: seconds, requests, tokens."""
    from tests.benchmarks.dynamo_replay_support import standins

    standins.install()
    module = importlib.import_module("dynamo.planner.monitoring.perf_metrics")
    kinds = importlib.import_module("dynamo.planner.config.defaults").SubComponentType
    found = {}
    for name, kind in (("prefill", kinds.PREFILL), ("decode", kinds.DECODE)):
        found[name] = [
            (
                one.wall_time,
                one.scheduled_requests.num_prefill_requests + one.scheduled_requests.num_decode_requests,
                one.scheduled_requests.sum_prefill_tokens + one.scheduled_requests.sum_decode_kv_tokens,
            )
            for one in module._convert_profiling_data_to_fpms(folder, kind)
        ]
    return found


if __name__ == "__main__":
    release, place = sys.argv[1:]
    print(json.dumps(interpolated(place, json.load(sys.stdin)) if release == "0.9.1" else forward_passes(place)))
