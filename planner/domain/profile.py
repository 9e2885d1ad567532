"""A profile: the measured performance of an engine, in Dynamo's terms."""

from __future__ import annotations

from dataclasses import dataclass

from planner.domain.power import PowerCurve


@dataclass(frozen=True, slots=True)
class PrefillProfile:
    """TTFT of a single prefill by input length. Equal-length tuples, ``isl_tokens`` rising."""

    isl_tokens: tuple[float, ...]
    ttft_ms: tuple[float, ...]
    tokens_per_s_per_gpu: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DecodeProfile:
    """ITL by KV use and context (``isl + osl / 2``). Equal-length tuples, one entry per measured point."""

    kv_usage: tuple[float, ...]
    context_tokens: tuple[float, ...]
    itl_ms: tuple[float, ...]
    tokens_per_s_per_gpu: tuple[float, ...]
    max_kv_tokens: int


@dataclass(frozen=True, slots=True)
class Profile:
    """Both phases of one model on one GPU type, with the software and settings of the sweep where known."""

    name: str
    prefill: PrefillProfile | None
    decode: DecodeProfile | None
    prefill_gpus: int = 1
    decode_gpus: int = 1
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    dropped: tuple[str, ...] = ()
    """One line per dropped measured point, with the reason."""
    with_dropped: tuple[PrefillProfile | None, DecodeProfile | None] = (None, None)
    """Both phases with the dropped points, for the published planner's formulas; None where nothing was dropped."""
    prefill_curve: PowerCurve | None = None
    decode_curve: PowerCurve | None = None
    """Speed by power cap of a GPU in each phase; None where it was not measured."""

    @property
    def as_measured(self) -> tuple[PrefillProfile | None, DecodeProfile | None]:
        """Prefill and decode with every measured point, contradicting ones included."""
        prefill, decode = self.with_dropped
        return prefill or self.prefill, decode or self.decode
