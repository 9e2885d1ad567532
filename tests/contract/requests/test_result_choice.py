"""Which TP size each phase gets, from results of known engines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.requests.cluster.result_choice import chosen_results
from planner.adapters.profiles import ProfileError
from planner.profiler.requests.generated.deployment_sizing import SizingError
from planner.profiler.requests.request_manifest import parse_request
from tests.unit.planner.profiler.requests.request_examples import OWN

ISLS = [100.0, 2000.0, 8000.0]
BATCHES = [(batch, context) for context in (500.0, 3000.0, 9000.0) for batch in (1, 40, 100)]


def results(tp: int, ttft_ms: float, itl_ms: float) -> dict[str, str]:
    """Files of an engine whose times are flat: a TTFT for each thousand tokens, an ITL for each batch up to 40."""
    ttft = [ttft_ms * isl / 1000 for isl in ISLS]
    itl = [itl_ms * (1 + batch / 100) for batch, _ in BATCHES]
    prefill = {
        "prefill_isl": ISLS,
        "prefill_ttft": ttft,
        "prefill_thpt_per_gpu": [isl / ms * 1000 / tp for isl, ms in zip(ISLS, ttft, strict=True)],
    }
    decode = {
        "x_kv_usage": [batch * context / 1e6 for batch, context in BATCHES],
        "y_context_length": [context for _, context in BATCHES],
        "z_itl": itl,
        "z_thpt_per_gpu": [batch / ms * 1000 / tp for (batch, _), ms in zip(BATCHES, itl, strict=True)],
        "max_kv_tokens": 1_000_000,
    }
    texts = (prefill, decode, {"prefill_tp": tp, "decode_tp": tp})
    return dict(
        zip(("prefill_raw_data.json", "decode_raw_data.json", "meta.json"), map(json.dumps, texts), strict=True)
    )


def request(objective: str = "throughput") -> Any:
    """TTFT 500 ms at 3000 tokens, ITL 40 ms."""
    return parse_request({**OWN, "spec": {**OWN["spec"], "objective": objective}})


@pytest.mark.parametrize(
    ("objective", "prefill", "decode"), [("throughput", 2, 1), ("latency", 4, 4), ("goodput_per_watt", 2, 1)]
)
def test_each_phase_has_its_own_size(objective: str, prefill: int, decode: int) -> None:
    # TP 1 misses the TTFT; TP 4 is the fastest, and gives less for each GPU.
    measured = [results(1, 200.0, 20.0), results(2, 110.0, 16.0), results(4, 80.0, 14.0)]
    files, profile = chosen_results(measured, request(objective))
    assert (profile.prefill_gpus, profile.decode_gpus) == (prefill, decode)
    meta = json.loads(files["meta.json"])
    assert (meta["prefill_tp"], meta["decode_tp"]) == (prefill, decode)


def test_where_none_meets_the_target_the_fastest_is_taken() -> None:
    _, profile = chosen_results([results(1, 900.0, 90.0), results(2, 700.0, 60.0)], request())
    assert (profile.prefill_gpus, profile.decode_gpus) == (2, 2)


def test_results_that_cannot_be_read_are_left_out_and_named_where_there_are_no_others() -> None:
    broken = {**results(1, 100.0, 10.0), "decode_raw_data.json": "{"}
    _, profile = chosen_results([broken, results(2, 110.0, 16.0)], request())
    assert profile.decode_gpus == 2
    with pytest.raises(ProfileError, match=r"^decode_raw_data\.json: cannot be read as JSON"):
        chosen_results([broken], request())
    half = {name: text for name, text in results(1, 100.0, 10.0).items() if "decode" not in name}
    with pytest.raises(SizingError, match="lacks a phase"):
        chosen_results([half], request())
