"""Profiles: both of Dynamo's forms, and one clear line for each way in which a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.adapters.profiles import ProfileError, load_profile
from tests.shared_data import shared

PREFILL: dict[str, Any] = {
    "prefill_isl": [100, 1000, 2000],
    "prefill_ttft": [10.0, 50.0, 100.0],
    "prefill_thpt_per_gpu": [10000.0, 20000.0, 20000.0],
}
DECODE: dict[str, Any] = {
    "x_kv_usage": [0.01, 0.5, 0.9],
    "y_context_length": [1000, 1000, 1000],
    "z_itl": [5.0, 20.0, 30.0],
    "z_thpt_per_gpu": [200.0, 2500.0, 3000.0],
    "max_kv_tokens": 100_000,
}


def write(folder: Path, prefill: dict[str, Any] | None = PREFILL, decode: dict[str, Any] | None = DECODE) -> Path:
    if prefill is not None:
        (folder / "prefill_raw_data.json").write_text(json.dumps(prefill))
    if decode is not None:
        (folder / "decode_raw_data.json").write_text(json.dumps(decode))
    return folder


def test_the_json_form(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path))
    assert profile.prefill is not None
    assert profile.prefill.ttft_ms == (10.0, 50.0, 100.0)
    assert profile.decode is not None
    assert profile.decode.max_kv_tokens == 100_000
    assert profile.dropped == ()
    assert (profile.prefill_gpus, profile.decode_gpus) == (1, 1)


def test_the_npz_form_is_preferred(tmp_path: Path) -> None:
    write(tmp_path, prefill={"garbage": []}, decode=None)
    folder = tmp_path / "selected_prefill_interpolation"
    folder.mkdir()
    arrays: dict[str, Any] = {key: np.asarray(values) for key, values in PREFILL.items()}
    np.savez(folder / "raw_data.npz", **arrays)
    profile = load_profile(tmp_path)
    assert profile.prefill is not None
    assert profile.decode is None


def test_gpus_are_inferred_where_no_meta_has_them(tmp_path: Path) -> None:
    four = {**PREFILL, "prefill_thpt_per_gpu": [value / 4 for value in PREFILL["prefill_thpt_per_gpu"]]}
    assert load_profile(write(tmp_path, four)).prefill_gpus == 4


def test_a_point_that_contradicts_itself_is_dropped_with_the_reason(tmp_path: Path) -> None:
    queued = {**DECODE, "z_thpt_per_gpu": [200.0, 2500.0, 1500.0]}
    profile = load_profile(write(tmp_path, decode=queued))
    assert profile.decode is not None
    assert profile.decode.itl_ms == (5.0, 20.0)
    assert len(profile.dropped) == 1
    assert "n 90: n / itl is 3000 tokens/s, its throughput says 1500" in profile.dropped[0]


@pytest.mark.parametrize(
    ("prefill", "decode", "said"),
    [
        ({"prefill_isl": [1]}, DECODE, "lacks prefill_ttft, prefill_thpt_per_gpu; it holds prefill_isl"),
        ({**PREFILL, "prefill_ttft": [1.0]}, DECODE, "columns differ in length: prefill_isl 3, prefill_ttft 1"),
        ({**PREFILL, "prefill_ttft": ["a", "b", "c"]}, DECODE, "prefill_ttft is not a list of numbers"),
        ({**PREFILL, "prefill_ttft": [0.01, 0.05, 0.0999]}, DECODE, "looks like seconds, it must be ms"),
        ({**PREFILL, "prefill_ttft": [0.0, 50.0, 100.0]}, DECODE, "prefill_ttft holds 0"),
        ({**PREFILL, "prefill_isl": [-1, 2, 3]}, DECODE, "must be a finite number that is not negative"),
        (PREFILL, {**DECODE, "x_kv_usage": [1, 50, 90]}, "it is a fraction, 0 to 1, not a percentage"),
        (PREFILL, {**DECODE, "max_kv_tokens": 0}, "max_kv_tokens holds 0"),
        (PREFILL, {key: value for key, value in DECODE.items() if key != "max_kv_tokens"}, "lacks max_kv_tokens"),
        (None, None, "holds no profile; looked for"),
    ],
)
def test_what_is_wrong_is_reported_in_one_line(
    tmp_path: Path, prefill: dict[str, Any] | None, decode: dict[str, Any] | None, said: str
) -> None:
    with pytest.raises(ProfileError) as error:
        load_profile(write(tmp_path, prefill, decode))
    assert said in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_not_what_their_names_promise(tmp_path: Path) -> None:
    (tmp_path / "prefill_raw_data.json").write_text("{")
    with pytest.raises(ProfileError, match="cannot be read as JSON"):
        load_profile(tmp_path)
    (tmp_path / "prefill_raw_data.npz").write_bytes(b"PK nothing")
    with pytest.raises(ProfileError, match="cannot be read as npz"):
        load_profile(tmp_path)
    with pytest.raises(ProfileError, match="no such folder"):
        load_profile(tmp_path / "absent")


def test_meta_in_other_units_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps({"units": {"z_itl": "s"}}))
    with pytest.raises(ProfileError, match="z_itl is in 's'; profiles here are in ms"):
        load_profile(tmp_path)


def test_both_forms_of_a_measured_profile_agree_and_lose_the_queued_points() -> None:
    folder = shared("profiles/dynamo_h200_8b_fp8_tp1p_tp1d")
    profile = load_profile(folder)
    assert len(profile.dropped) == 3
    assert all("context 350" in line for line in profile.dropped)


def test_every_profile_at_hand_loads() -> None:
    for folder in sorted(shared("profiles").iterdir()):
        profile = load_profile(folder)
        tags = folder.name.rsplit("_", 2)
        assert f"tp{profile.prefill_gpus}p" == tags[-2]
        assert f"tp{profile.decode_gpus}d" == tags[-1]
