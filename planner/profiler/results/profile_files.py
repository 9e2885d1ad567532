"""Writes a run's results in Dynamo's forms, npz and JSON, with ``meta.json`` beside them.

A file is written beside its place and then moved there, so that no reader finds half of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from planner.domain.profile import DecodeProfile, PrefillProfile
from planner.profiler.analysis.laws import fit_decode, fit_prefill
from planner.profiler.analysis.profiled import Profiled
from planner.profiler.analysis.recommendation import Targets

RAW = "raw_data.npz"
UNITS = {
    "prefill_isl": "tokens",
    "prefill_ttft": "ms",
    "prefill_thpt_per_gpu": "tokens/s/GPU",
    "x_kv_usage": "share, 0 to 1",
    "y_context_length": "tokens, isl + osl / 2",
    "z_itl": "ms",
    "z_thpt_per_gpu": "tokens/s/GPU",
    "max_kv_tokens": "tokens",
}


def write_profile(folder: Path, profiled: Profiled, targets: Targets, source: Mapping[str, Any]) -> tuple[Path, ...]:
    """Write the profile of the recommended TP sizes. Returns the files. Raises OSError.

    ``source``: what was profiled, for ``meta.json``.
    """
    found = profiled.recommendation
    prefill, decode = profiled.prefill(), profiled.decode()
    written = []
    for phase, tp, table in (
        ("prefill", found.prefill.point.tp, prefill_columns(prefill)),
        ("decode", found.decode.point.tp, decode_columns(decode)),
    ):
        names = (f"selected_{phase}_interpolation", f"{phase}_tp{tp}_interpolation")
        written += [_write_npz(folder / name, table) for name in names]
        plain = {key: value.tolist() for key, value in table.items()}
        if "max_kv_tokens" in plain:
            plain["max_kv_tokens"] = decode.max_kv_tokens
        written.append(write_json(folder / f"{phase}_raw_data.json", plain))
    return (*written, write_json(folder / "meta.json", _meta(profiled, targets, source)))


def prefill_columns(profile: PrefillProfile) -> dict[str, np.ndarray]:
    """Dynamo's arrays of a prefill profile."""
    return {
        "prefill_isl": np.asarray(profile.isl_tokens).round().astype(np.int64),
        "prefill_ttft": np.asarray(profile.ttft_ms, dtype=np.float64),
        "prefill_thpt_per_gpu": np.asarray(profile.tokens_per_s_per_gpu, dtype=np.float64),
    }


def decode_columns(profile: DecodeProfile) -> dict[str, np.ndarray]:
    """Dynamo's arrays of a decode profile."""
    return {
        "x_kv_usage": np.asarray(profile.kv_usage, dtype=np.float64),
        "y_context_length": np.asarray(profile.context_tokens, dtype=np.float64),
        "z_itl": np.asarray(profile.itl_ms, dtype=np.float64),
        "z_thpt_per_gpu": np.asarray(profile.tokens_per_s_per_gpu, dtype=np.float64),
        "max_kv_tokens": np.asarray([profile.max_kv_tokens], dtype=np.int64),
    }


def write_json(file: Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON file. Raises OSError."""
    return write_whole(file, (json.dumps(content, indent=1) + "\n").encode())


def write_whole(file: Path, content: bytes, *, private: bool = False) -> Path:
    """Write a file that is there whole or not at all; ``private``: for this user only. Raises OSError."""
    draft = file.with_name(f".{file.name}.new")
    if private:
        draft.unlink(missing_ok=True)
        draft.touch(0o600, exist_ok=False)
    draft.write_bytes(content)
    return draft.replace(file)


def _write_npz(folder: Path, table: Mapping[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    draft = folder / ".raw_data.npz.new"
    with draft.open("wb") as file:
        np.savez(file, allow_pickle=False, **table)
    return draft.replace(folder / RAW)


def _meta(profiled: Profiled, targets: Targets, source: Mapping[str, Any]) -> dict[str, Any]:
    found = profiled.recommendation
    limits = {} if profiled.max_num_seqs is None else {"max_num_seqs": profiled.max_num_seqs}
    return {
        **source,
        "prefill_tp": found.prefill.point.tp,
        "decode_tp": found.decode.point.tp,
        **limits,
        "targets": asdict(targets),
        "fits": {
            "prefill": asdict(fit_prefill(profiled.prefill())),
            "decode": asdict(fit_decode(profiled.decode())),
        },
        "notes": list(profiled.notes),
        "units": UNITS,
    }
