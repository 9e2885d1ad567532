"""Which TP sizes a deployment gets, where each was profiled by a Job of its own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from planner.adapters.profiles import META_FILE, ProfileError, load_profile
from planner.core.performance.engine_model import engine
from planner.domain.profile import Profile
from planner.profiler.requests.generated.config_maps import PROFILE_FILES, RESULT_FILES
from planner.profiler.requests.generated.deployment_sizing import DeploymentSizing, SizingError, size_deployment
from planner.profiler.requests.power_request import HardwareBounds, PowerRequest, RequestedLoad


def chosen_results(results: Sequence[Mapping[str, str]], request: PowerRequest) -> tuple[dict[str, str], Profile]:
    """The files of the best TP size of each phase, and the profile that they are.

    Best as for `wattscale profile`: the most tokens per second and GPU among those that meet the target; where none
    does, or for the objective ``latency``, the fastest. Raises ProfileError and SizingError: no results can be used,
    or they lack a phase.
    """
    bare = replace(request, hardware=HardwareBounds(), power=None, planner=None, load=RequestedLoad())
    sized: list[_Sized] = []
    problem: ProfileError | SizingError | None = None
    for files in results:
        try:
            profile = read_profile(files)
            sized.append(_Sized(files, profile, size_deployment(profile, bare)))
        except (ProfileError, SizingError) as error:
            problem = error
    if not sized:
        raise problem or SizingError("there are no results")
    prefill = max(sized, key=lambda one: one.prefill_rank(request)).files
    decode = max(sized, key=lambda one: one.decode_rank(request)).files
    files = {PROFILE_FILES[0]: prefill[PROFILE_FILES[0]], PROFILE_FILES[1]: decode[PROFILE_FILES[1]]}
    files[META_FILE] = _meta(prefill, decode)
    return files, read_profile(files)


def read_profile(files: Mapping[str, str]) -> Profile:
    """The profile in a ConfigMap. Raises ProfileError."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "profile")
        folder.mkdir()
        for name in RESULT_FILES:
            if name in files:
                (folder / name).write_text(files[name], encoding="utf-8")
        try:
            return load_profile(folder)
        except ProfileError as error:
            raise ProfileError(str(error).replace(f"{folder}/", "").replace(str(folder), "the results")) from error


@dataclass(frozen=True, slots=True)
class _Sized:
    """The results of one TP size, and what a deployment of it alone would be. Ranks: the greater, the better."""

    files: Mapping[str, str]
    profile: Profile
    sizing: DeploymentSizing

    def prefill_rank(self, request: PowerRequest) -> tuple[bool, float]:
        pool, time_ms = self.sizing.prefill, self.sizing.ttft_ms
        return _rank(request, time_ms, time_ms, request.targets.ttft_ms, pool.requests_per_s / pool.gpus)

    def decode_rank(self, request: PowerRequest) -> tuple[bool, float]:
        pool, targets, decode = self.sizing.decode, request.targets, engine(self.profile).decode
        assert decode is not None  # noqa: S101 - a deployment was sized by it
        alone_ms = decode.itl_ms(1, targets.isl + targets.osl / 2)
        return _rank(request, alone_ms, self.sizing.itl_ms, targets.itl_ms, pool.requests_per_s / pool.gpus)


def _rank(request: PowerRequest, alone_ms: float, time_ms: float, target_ms: float, rate: float) -> tuple[bool, float]:
    """``alone_ms``: of one request; ``time_ms`` and ``rate``: under the load that the deployment is sized for."""
    if request.power is not None and request.power.objective == "latency":
        return True, -alone_ms
    meets = time_ms <= target_ms
    return meets, rate if meets else -time_ms


def _meta(prefill: Mapping[str, str], decode: Mapping[str, str]) -> str:
    first, second = (json.loads(files[META_FILE]) for files in (prefill, decode))
    found: dict[str, Any] = {key: value for key, value in second.items() if key != "prefill_tp"}
    if "prefill_tp" in first:
        found["prefill_tp"] = first["prefill_tp"]
    if "fits" in first and "fits" in second:
        found["fits"] = {"prefill": first["fits"]["prefill"], "decode": second["fits"]["decode"]}
    return json.dumps(found, indent=1) + "\n"
