"""`wattscale engine`: a small HTTP engine with OpenAI's interface, vLLM's metrics and true times."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from deploy.cli.errors import UsageError
from deploy.cli.numbers import LONGEST_S, MOST_MS, MOST_WATTS, number, whole

MOST_TOKENS = 10**9
LINEAR = ("prefill_base_ms", "prefill_ms_per_token", "itl_base_ms", "itl_ms_per_request", "itl_ms_per_kv_token")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "engine",
        help="serve OpenAI's interface with an engine's times and no model",
        description="Serves /v1/completions and /v1/chat/completions as an engine would: queue, batch, KV cache and "
        "watts are simulated in real time, and the words follow from seed and prompt. /health answers 200 while it "
        "serves, /metrics has vLLM's names. POST /drain or SIGTERM: it takes no new request, completes those it has, "
        "and ends.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=whole(0, 65_535), default=0, help="0 (default): a free one, which it prints")
    parser.add_argument("--model", default="demo", help="the name of the model (default: demo)")
    parser.add_argument(
        "--role",
        choices=("prefill", "decode", "aggregated"),
        default="aggregated",
        help="whose power curve its GPUs have (default: aggregated); what it computes follows from each request's "
        "kv_transfer_params, as in vLLM",
    )
    parser.add_argument("--seed", type=whole(0, 2**53), default=0, help="seed of the answers")
    parser.add_argument(
        "--mean-answer-tokens",
        type=number(1, 1e6),
        default=128.0,
        metavar="N",
        help="mean length of answers without ignore_eos (default: 128)",
    )
    parser.add_argument(
        "--startup-s", type=number(0, LONGEST_S), default=0.0, metavar="S", help="time until it serves (default: 0)"
    )
    _times(parser)
    _capacity(parser)
    _gpus(parser)
    parser.set_defaults(run=_run)


def _times(parser: argparse.ArgumentParser) -> None:
    times = parser.add_argument_group("times: of a profile, or as straight lines (all five)")
    times.add_argument("--profile", type=Path, help="folder with a profile (npz or JSON); default: the built-in one")
    times.add_argument(
        "--truth", type=number(0, 100, above=True), default=1.0, metavar="X", help="speed against the profile"
    )
    milliseconds = number(0, MOST_MS)
    times.add_argument("--prefill-base-ms", type=milliseconds, metavar="MS", help="time of an empty prompt")
    times.add_argument("--prefill-ms-per-token", type=milliseconds, metavar="MS", help="per token of a prompt")
    times.add_argument("--itl-base-ms", type=milliseconds, metavar="MS", help="time of a step for nothing")
    times.add_argument("--itl-ms-per-request", type=milliseconds, metavar="MS", help="per running request")
    times.add_argument("--itl-ms-per-kv-token", type=milliseconds, metavar="MS", help="per token in the KV cache")


def _capacity(parser: argparse.ArgumentParser) -> None:
    capacity = parser.add_argument_group("capacity")
    tokens = whole(1, MOST_TOKENS)
    capacity.add_argument("--max-model-len", type=tokens, default=32_768, metavar="N", help="longest context")
    capacity.add_argument(
        "--max-kv-tokens", type=whole(16, MOST_TOKENS), metavar="N", help="KV cache; default: as profiled"
    )
    capacity.add_argument("--max-num-seqs", type=tokens, metavar="N", help="largest batch; default: as profiled")
    capacity.add_argument(
        "--max-num-batched-tokens", type=tokens, metavar="N", help="token budget of a step; default: as profiled"
    )
    capacity.add_argument("--no-prefix-cache", action="store_true", help="compute every prompt from its beginning")


def _gpus(parser: argparse.ArgumentParser) -> None:
    gpus = parser.add_argument_group("simulated GPUs, which CUDA_VISIBLE_DEVICES names")
    gpus.add_argument("--gpu", choices=("h100", "h200", "b200"), default="h200", help="their type (default: h200)")
    where = gpus.add_mutually_exclusive_group()
    where.add_argument(
        "--cap-watts", type=number(0, MOST_WATTS, above=True), metavar="W", help="a cap that stays; default: none"
    )
    where.add_argument(
        "--gpu-folder", type=Path, metavar="FOLDER", help="GPUs shared with a node agent, which sets their caps"
    )


def _run(args: argparse.Namespace) -> int:
    linear = [getattr(args, name) for name in LINEAR]
    if None in linear and any(value is not None for value in linear):
        missing = [f"--{name.replace('_', '-')}" for name, value in zip(LINEAR, linear, strict=True) if value is None]
        raise UsageError(f"straight lines need all five times: {', '.join(missing)} missing")
    if None not in linear and (args.profile is not None or args.truth != 1.0):
        raise UsageError("--profile and --truth do not go with times as straight lines")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    from deploy.engine.engine_run import EngineOptions, LinearTimes, run_engine

    return run_engine(
        EngineOptions(
            host=args.host,
            port=args.port,
            model=args.model,
            role=args.role,
            seed=args.seed,
            mean_answer_tokens=args.mean_answer_tokens,
            startup_s=args.startup_s,
            profile=args.profile,
            truth=args.truth,
            linear=None if None in linear else LinearTimes(*linear),
            max_model_len=args.max_model_len,
            max_kv_tokens=args.max_kv_tokens,
            max_num_seqs=args.max_num_seqs,
            max_batched_tokens=args.max_num_batched_tokens,
            prefix_cache=not args.no_prefix_cache,
            gpu=args.gpu,
            cap_watts=args.cap_watts,
            gpu_folder=args.gpu_folder,
            visible=None if visible is None else tuple(part for part in visible.split(",") if part),
        )
    )
