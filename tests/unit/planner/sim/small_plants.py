"""Small plants whose service times are known exactly."""

from __future__ import annotations

from collections.abc import Iterable

from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.domain.profile import DecodeProfile, PrefillProfile, Profile
from planner.domain.request import Request
from planner.sim.cluster.plant import ClusterSpec, Plant, PlantSpec, TransferSpec
from planner.sim.cluster.sim_gpu import GpuCard
from planner.sim.cluster.worker_pool import PoolSpec

PREFILL_CURVE = PowerCurve(140_000, 616_000, 0.6, 75_000, 200_000, 700_000, 350_000)
DECODE_CURVE = PowerCurve(276_000, 511_000, 0.257, 75_000, 200_000, 700_000, 350_000)
A_MS, B_MS, C_MS = 10.0, 0.1, 0.0001
MAX_KV = 100_000


def profile(*, max_batched: int = 100_000, max_kv: int = MAX_KV, max_seqs: int = 512) -> Profile:
    """Prefill takes 0.1 ms a token; ITL is ``10 + 0.1 * batch + 0.0001 * kv`` ms."""
    isl = (100.0, 1000.0, 4000.0, 10_000.0, 20_000.0)
    points = [(batch, tokens) for tokens in (100.0, 1000.0, 4000.0) for batch in (1.0, 4.0, 16.0)]
    kv = [batch * tokens for batch, tokens in points]
    itl = [A_MS + B_MS * batch + C_MS * used for (batch, _), used in zip(points, kv, strict=True)]
    return Profile(
        name="by-heart",
        prefill=PrefillProfile(isl, tuple(0.1 * n for n in isl), tuple(10_000.0 for _ in isl)),
        decode=DecodeProfile(
            tuple(used / max_kv for used in kv),
            tuple(tokens for _, tokens in points),
            tuple(itl),
            tuple(batch / ms * 1000 for (batch, _), ms in zip(points, itl, strict=True)),
            max_kv,
        ),
        max_num_batched_tokens=max_batched,
        max_num_seqs=max_seqs,
    )


def disaggregated(
    prefill: int = 1,
    decode: int = 1,
    *,
    engines: Profile | None = None,
    startup_s: float = 0.0,
    seed: int = 0,
    gpus: int = 8,
    nodes: int = 1,
    gpus_per_replica: int = 1,
    truth: float = 1.0,
    mtbf_s: float | None = None,
    max_prompts: int = 1,
    card: GpuCard | None = None,
    transfer: TransferSpec | None = None,
) -> Plant:
    """A prefill and a decode pool, one prompt at a time, no time for transfers unless asked for."""
    pools = (
        PoolSpec(
            "prefill",
            Role.PREFILL,
            gpus_per_replica,
            PREFILL_CURVE,
            prefill,
            startup_s,
            mtbf_s=mtbf_s,
            max_prompts=max_prompts,
        ),
        PoolSpec("decode", Role.DECODE, gpus_per_replica, DECODE_CURVE, decode, startup_s, mtbf_s=mtbf_s),
    )
    cluster = ClusterSpec(nodes, gpus, card or GpuCard())
    spec = PlantSpec(cluster, pools, engines or profile(), truth, transfer or TransferSpec(0.0, 0.0), seed=seed)
    return Plant(spec)


def finish(plant: Plant, requests: Iterable[Request], limit_s: float = 1e6) -> Plant:
    """Run ``requests`` (finite) to the last token."""
    plant.submit(requests)
    while not (plant.exhausted and plant.in_flight == 0) and plant.now_s < limit_s:
        plant.advance(plant.now_s + 10.0)
    return plant
