"""Reads profiles in Dynamo's forms: npz or JSON, with an optional ``meta.json`` beside them.

Owns: finding the files, checking them, and dropping measured points that contradict themselves. Must never
guess around a broken file: a planner that sizes on a half-read profile is worse than one that does not start.
"""

from __future__ import annotations

import io
import json
import math
import statistics
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bus_schemas.regular_files import read_regular
from planner.adapters.measured_power import PowerCurveError, load_power_curves
from planner.domain.profile import DecodeProfile, PrefillProfile, Profile

PREFILL_KEYS = ("prefill_isl", "prefill_ttft", "prefill_thpt_per_gpu")
DECODE_KEYS = ("x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu", "max_kv_tokens")
PREFILL_FILES = ("selected_prefill_interpolation/raw_data.npz", "prefill_raw_data.npz", "prefill_raw_data.json")
DECODE_FILES = ("selected_decode_interpolation/raw_data.npz", "decode_raw_data.npz", "decode_raw_data.json")
META_FILE = "meta.json"
UNITS = {
    "prefill_ttft": "ms",
    "prefill_thpt_per_gpu": "tokens/s/GPU",
    "z_itl": "ms",
    "z_thpt_per_gpu": "tokens/s/GPU",
}
PROFILE_BYTES = 64 << 20
"""Maximum size of one file in bytes, packed and unpacked; real ones have a few kilobytes."""
CONTRADICTION = 0.12
"""Relative gap between n/itl and the stated throughput above which a point is not a measurement of that ITL: past
the engine's sequence limit the surplus waits in a queue. Sound sweeps show gaps of up to 8 %."""


class ProfileError(Exception):
    """A profile that cannot be used. The message is one line: which file, what is wrong with it."""


@dataclass(frozen=True, slots=True)
class _Table:
    """One file's columns, checked for presence, equal length, and finite numbers."""

    path: Path
    columns: Mapping[str, tuple[float, ...]]

    def __getitem__(self, key: str) -> tuple[float, ...]:
        return self.columns[key]


def load_profile(path: Path | str, *, name: str | None = None) -> Profile:
    """The profile in folder ``path``; either phase may be absent, not both.

    npz is preferred over JSON where both are there, as Dynamo does. GPUs per engine come from ``meta.json``
    (``prefill_tp``, ``decode_tp``) or, without it, from the profile's own identity
    ``throughput per GPU x GPUs = n / itl``. Raises ProfileError.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ProfileError(f"{folder}: no such folder; a profile is a folder with {PREFILL_FILES[-1]} or its npz form")
    meta = _read_meta(folder)
    try:
        curves = load_power_curves(folder)
    except PowerCurveError as error:
        raise ProfileError(str(error)) from error
    prefill_table = _find(folder, PREFILL_FILES, PREFILL_KEYS)
    decode_table = _find(folder, DECODE_FILES, DECODE_KEYS)
    if prefill_table is None and decode_table is None:
        raise ProfileError(f"{folder}: holds no profile; looked for {', '.join((*PREFILL_FILES, *DECODE_FILES))}")
    dropped: list[str] = []
    prefill, prefill_gpus, whole_prefill = None, 1, None
    if prefill_table is not None:
        prefill, prefill_gpus = _prefill(prefill_table, _optional_int(meta, "prefill_tp"), dropped)
        whole_prefill = _whole_prefill(prefill_table) if dropped else None
    before, decode, decode_gpus, whole_decode = len(dropped), None, 1, None
    if decode_table is not None:
        decode, decode_gpus = _decode(decode_table, _optional_int(meta, "decode_tp"), dropped)
        whole_decode = _whole_decode(decode_table) if len(dropped) > before else None
    return Profile(
        name=name or str(meta.get("name") or folder.resolve().name),
        prefill=prefill,
        decode=decode,
        prefill_gpus=prefill_gpus,
        decode_gpus=decode_gpus,
        max_num_seqs=_optional_int(meta, "max_num_seqs"),
        max_num_batched_tokens=_optional_int(meta, "max_num_batched_tokens"),
        dropped=tuple(dropped),
        with_dropped=(whole_prefill, whole_decode),
        prefill_curve=curves.get("prefill"),
        decode_curve=curves.get("decode"),
    )


def _read_meta(folder: Path) -> Mapping[str, Any]:
    path = folder / META_FILE
    if not path.exists():
        return {}
    meta = _read_json(path)
    units = meta.get("units", {})
    for key, unit in units.items() if isinstance(units, dict) else ():
        wanted = UNITS.get(key)
        if wanted is not None and str(unit).replace(" ", "").lower() != wanted.lower():
            raise ProfileError(f"{path}: {key} is in {unit!r}; profiles here are in {wanted}")
    return meta


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_regular(path, PROFILE_BYTES))
    except RecursionError:
        raise ProfileError(f"{path}: nested too deeply") from None
    except (OSError, ValueError) as error:
        raise ProfileError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ProfileError(f"{path}: holds a {type(content).__name__}, not an object with {PREFILL_KEYS[0]} and so on")
    return content


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        packed = io.BytesIO(read_regular(path, PROFILE_BYTES))
        with zipfile.ZipFile(packed) as members:
            unpacked_bytes = sum(member.file_size for member in members.infolist())
        if unpacked_bytes <= PROFILE_BYTES:
            with np.load(packed, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ProfileError(f"{path}: cannot be read as npz: {error}") from error
    raise ProfileError(f"{path}: unpacks to more than {PROFILE_BYTES} bytes")


def _find(folder: Path, names: Sequence[str], keys: Sequence[str]) -> _Table | None:
    for name in names:
        path = folder / name
        if path.exists():
            raw = _read_npz(path) if path.suffix == ".npz" else _read_json(path)
            return _table(path, raw, keys)
    return None


def _table(path: Path, raw: Mapping[str, Any], keys: Sequence[str]) -> _Table:
    missing = [key for key in keys if key not in raw]
    if missing:
        raise ProfileError(f"{path}: lacks {', '.join(missing)}; it holds {', '.join(sorted(raw)) or 'nothing'}")
    columns = {key: _column(path, key, raw[key]) for key in keys}
    lengths = {key: len(values) for key, values in columns.items() if key != "max_kv_tokens"}
    if len(set(lengths.values())) > 1:
        lengths_text = ", ".join(f"{key} {count}" for key, count in lengths.items())
        raise ProfileError(f"{path}: columns differ in length: {lengths_text}")
    if not all(columns.values()):
        raise ProfileError(f"{path}: holds no points")
    return _Table(path, columns)


def _column(path: Path, key: str, values: Any) -> tuple[float, ...]:
    try:
        column = tuple(float(value) for value in np.asarray(values, dtype=float).reshape(-1))
    except (TypeError, ValueError) as error:
        raise ProfileError(f"{path}: {key} is not a list of numbers: {error}") from error
    for value in column:
        if not math.isfinite(value) or value < 0:
            raise ProfileError(f"{path}: {key} holds {value}; it must be a finite number that is not negative")
    return column


def _optional_int(meta: Mapping[str, Any], key: str) -> int | None:
    value = meta.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ProfileError(f"{META_FILE}: {key} is {value!r}; it must be a whole number above zero")
    return value


def _prefill(table: _Table, gpus: int | None, dropped: list[str]) -> tuple[PrefillProfile, int]:
    isl, ttft, thpt = (table[key] for key in PREFILL_KEYS)
    _refuse_zeros(table, PREFILL_KEYS)
    _refuse_seconds(table, "prefill_ttft")
    rates = [n / (t / 1000.0) for n, t in zip(isl, ttft, strict=True)]
    gpus, scale = _engine(rates, thpt, gpus)
    rows: dict[float, tuple[float, float]] = {}
    for i, rate in enumerate(rates):
        where = f"prefill isl {isl[i]:g}"
        if not _agrees(where, "isl / ttft", rate, thpt[i] * scale, dropped):
            continue
        if isl[i] in rows:
            dropped.append(f"{where}: measured twice; the first is kept")
            continue
        rows[isl[i]] = (ttft[i], thpt[i])
    if not rows:
        raise ProfileError(f"{table.path}: every point contradicts itself: isl / ttft against prefill_thpt_per_gpu")
    order = sorted(rows)
    profile = PrefillProfile(tuple(order), tuple(rows[n][0] for n in order), tuple(rows[n][1] for n in order))
    return profile, gpus


def _decode(table: _Table, gpus: int | None, dropped: list[str]) -> tuple[DecodeProfile, int]:
    usage, context, itl, thpt = (table[key] for key in DECODE_KEYS[:4])
    _refuse_zeros(table, DECODE_KEYS[1:])
    _refuse_seconds(table, "z_itl")
    if max(usage) > 1.0:
        raise ProfileError(f"{table.path}: x_kv_usage holds {max(usage):g}; it is a fraction, 0 to 1, not a percentage")
    max_kv = int(table["max_kv_tokens"][0])
    counts = [u * max_kv / c for u, c in zip(usage, context, strict=True)]
    rates = [n / (t / 1000.0) for n, t in zip(counts, itl, strict=True)]
    gpus, scale = _engine(rates, thpt, gpus)
    kept = [
        i
        for i, rate in enumerate(rates)
        if _agrees(f"decode context {context[i]:g}, n {counts[i]:.0f}", "n / itl", rate, thpt[i] * scale, dropped)
    ]
    if not kept:
        raise ProfileError(f"{table.path}: every point contradicts itself: n / itl against z_thpt_per_gpu")
    kept_usage, kept_context, kept_itl, kept_thpt = (
        tuple(column[i] for i in kept) for column in (usage, context, itl, thpt)
    )
    return DecodeProfile(kept_usage, kept_context, kept_itl, kept_thpt, max_kv), gpus


def _whole_prefill(table: _Table) -> PrefillProfile:
    """Every length, as measured first."""
    rows = {isl: row for isl, *row in reversed([*zip(*(table[key] for key in PREFILL_KEYS), strict=True)])}
    order = sorted(rows)
    return PrefillProfile(tuple(order), tuple(rows[isl][0] for isl in order), tuple(rows[isl][1] for isl in order))


def _whole_decode(table: _Table) -> DecodeProfile:
    usage, context, itl, thpt = (table[key] for key in DECODE_KEYS[:4])
    return DecodeProfile(usage, context, itl, thpt, int(table["max_kv_tokens"][0]))


def _refuse_zeros(table: _Table, keys: Sequence[str]) -> None:
    for key in keys:
        if min(table[key]) <= 0:
            raise ProfileError(f"{table.path}: {key} holds 0; it must be above zero")


def _refuse_seconds(table: _Table, key: str) -> None:
    """No engine answers a whole sweep in under a tenth of a millisecond: such a column is in seconds."""
    if max(table[key]) < 0.1:
        raise ProfileError(f"{table.path}: {key} is at most {max(table[key]):g}; it looks like seconds, it must be ms")


def _engine(rates: Sequence[float], thpt_per_gpu: Sequence[float], gpus: int | None) -> tuple[int, float]:
    """(GPUs per engine, tokens/s of the engine per stated token/s/GPU): the same number, except under attention data
    parallelism, whose stated throughput is of one rank. The median, because contradicting points are few."""
    ratio = statistics.median(rate / each for rate, each in zip(rates, thpt_per_gpu, strict=True))
    gpus = gpus or max(1, round(ratio))
    return gpus, float(gpus) if abs(ratio / gpus - 1.0) <= CONTRADICTION else ratio


def _agrees(where: str, what: str, rate: float, stated: float, dropped: list[str]) -> bool:
    if abs(rate / stated - 1.0) <= CONTRADICTION:
        return True
    dropped.append(f"{where}: {what} is {rate:.0f} tokens/s, its throughput says {stated:.0f}: a queue was measured")
    return False
