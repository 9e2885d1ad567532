"""One deployment's engines: both phases of a profile, fitted once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from planner.core.performance.decode_model import DecodeModel, decode_model
from planner.core.performance.prefill_model import PrefillModel, prefill_model
from planner.domain.profile import Profile


@dataclass(frozen=True, slots=True)
class Engine:
    """The models of both phases; None if the profile lacks the phase."""

    prefill: PrefillModel | None
    decode: DecodeModel | None


@lru_cache(maxsize=4096)
def engine(profile: Profile) -> Engine:
    """The engine of a profile. Pure; the cache avoids fitting it again at every tick."""
    return Engine(
        prefill=prefill_model(profile.prefill, profile.max_num_batched_tokens) if profile.prefill else None,
        decode=decode_model(profile.decode, profile.max_num_seqs, profile.decode_gpus) if profile.decode else None,
    )
