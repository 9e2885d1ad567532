"""From per-request records to scores, with the reason of every miss.

A good request met both targets: TTFT, and the mean of its own inter-token latencies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

REASONS = ("rejected", "prompt too long", "start-up", "queue", "decode")


def score(
    records: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    ttft_ms: float,
    itl_ms: float,
    alone_ms: Any,
    growing: Sequence[tuple[float, float]],
    gpus: Mapping[str, int],
) -> dict[str, Any]:
    """``alone_ms(isl)``: TTFT of a prompt on an idle engine; ``growing``: spans (ms) in which workers were starting;
    ``gpus``: those of one worker, by role. A rejected prompt has no first token: it is a miss like any other.
    ``reachable_share``: of the requests that some fleet could have made good; ``token_share``: weighed by answers.
    """
    misses: Counter[str] = Counter()
    tokens = good_tokens = 0
    for record in records:
        tokens += record["requested_output_length"]
        late = record["ttft_ms"] is None or record["ttft_ms"] > ttft_ms
        slow = (record["itl_ms"] or 0.0) > itl_ms
        if late or slow:
            misses[_reason(record, late, ttft_ms, alone_ms, growing)] += 1
        else:
            good_tokens += record["requested_output_length"]
    good = len(records) - sum(misses.values())
    return {
        "requests": len(records),
        "good_share": good / max(1, len(records)),
        "reachable_share": good / max(1, len(records) - misses["rejected"] - misses["prompt too long"]),
        "token_share": good_tokens / max(1, tokens),
        "gpu_hours": sum(summary[f"{role}_worker_seconds"] * count for role, count in gpus.items()) / 3600.0,
        "mean_workers": {
            role: summary[f"{role}_worker_seconds"] * 1000.0 / summary["duration_ms"] for role in ("prefill", "decode")
        },
        "misses": {reason: misses[reason] for reason in REASONS},
        "ttft_ms": {q: summary[f"{q}_ttft_ms"] for q in ("mean", "median", "p95", "p99")},
        "itl_ms": {q: summary[f"{q}_itl_ms"] for q in ("mean", "median", "p95", "p99")},
        "duration_s": summary["duration_ms"] / 1000.0,
    }


def _reason(
    record: Mapping[str, Any], late: bool, ttft_ms: float, alone_ms: Any, growing: Sequence[tuple[float, float]]
) -> str:
    if record["ttft_ms"] is None:
        return "rejected"
    if not late or ttft_ms >= record["ttft_ms"] - _waited_for_decode_ms(record):
        return "decode"
    if alone_ms(record["input_length"]) > ttft_ms:
        return "prompt too long"
    at = record["arrival_time_ms"]
    return "start-up" if any(begin <= at <= end for begin, end in growing) else "queue"


def _waited_for_decode_ms(record: Mapping[str, Any]) -> float:
    """From the end of prefill to the admission by a decode engine: part of TTFT, but decode's doing."""
    held, admitted = record["source_held_ms"], record["decode_admit_ms"]
    return 0.0 if held is None or admitted is None else max(0.0, float(admitted) - float(held))
