"""`wattscale profile`: measures or estimates an engine, and writes the profile that the planner sizes by."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deploy.cli.bus_address import add_bus_options
from deploy.cli.errors import UsageError
from deploy.cli.numbers import LONGEST_S, MOST_MS, number, whole

if TYPE_CHECKING:
    from deploy.profiling.engine_config import GivenEngine

KEY = "WATTSCALE_PROFILE_API_KEY"
MOST_TOKENS = 10**9
MOST_GPUS_PER_ENGINE = 1024
OFFLINE = frozenset(
    {
        *("offline", "system", "model", "backend", "backend_version", "moe_parallel", "tp", "output_dir"),
        *("isl", "osl", "ttft", "itl", "objective", "max_context_length", "max_kv_tokens", "max_in_flight"),
    }
)
ONE_ENGINE = "give --endpoint URL for an engine that runs, or --backend and --config to start engines"
COMMAND_WORDS = ("command", "run")
MOST_CAP_WATTS = 100_000
LOCK_FILE = "/run/wattscale/agent.lock"
"""Where the chart and the systemd unit have the agent's lock."""
BACKENDS = {"vllm": "vllm", "vllm_v0": "vllm", "vllm_v1": "vllm", "sglang": "sglang", "trtllm": "trtllm"}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "profile",
        help="measure or estimate an engine, and write the profile that the planner sizes by",
        description="Measures TTFT by input length and ITL by requests in flight and context over OpenAI's interface, "
        "with the draw of the GPUs, recommends TP sizes and thresholds, and writes Dynamo's profile files. An "
        "interrupted run goes on where it was when the same command is given again. The engine is one that runs "
        "(--endpoint), or one that is started for each TP size (--backend and --config); where it wants a key, that "
        f"comes from {KEY}. "
        "Without a GPU, --offline estimates the same files from published measurements of kernels.",
    )
    _engine(parser)
    _offline(parser)
    _targets(parser)
    _sweep(parser)
    _power(parser)
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="folder for all files")
    parser.add_argument(
        "--compare",
        type=Path,
        nargs=2,
        metavar=("A", "B"),
        help="instead of all else: two folders with profiles, as measured and estimated; prints one table",
    )
    parser.set_defaults(run=partial(_run, parser))


def _engine(parser: argparse.ArgumentParser) -> None:
    engine = parser.add_argument_group("engine")
    engine.add_argument("--endpoint", metavar="URL", help="address of an engine that runs, without /v1")
    engine.add_argument(
        "--backend", choices=tuple(BACKENDS), help="start, or with --offline estimate, engines of a kind"
    )
    engine.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML with model, and optionally args, env and command of the engine; or a DynamoGraphDeployment, whose "
        "workers say model, backend, TP sizes and arguments (--model and --tp are stronger)",
    )
    engine.add_argument(
        "--worker",
        choices=("prefill", "decode"),
        help="of a graph: whose engine arguments are profiled, where the two workers' differ",
    )
    engine.add_argument(
        "--model",
        metavar="NAME",
        help="where the endpoint serves several; with --offline: which; with a graph: instead of its own",
    )
    engine.add_argument(
        "--tp",
        type=whole_numbers("TP sizes", 1, MOST_GPUS_PER_ENGINE),
        metavar="N,N",
        help="GPUs of an engine; with --backend several (default: powers of two up to the GPUs of the node), with "
        "--endpoint the one it was started with (default: 1), with --offline several (default: 1,2,4,8)",
    )
    engine.add_argument(
        "--gpus",
        type=whole_numbers("GPUs", 0, MOST_GPUS_PER_ENGINE),
        metavar="I,I",
        help="GPUs of this node to use, by index (default: all); with --endpoint those on which the engine runs, whose "
        "draw is then measured",
    )
    engine.add_argument(
        "--timeout-s", type=number(0, LONGEST_S, above=True), default=600.0, metavar="S", help="for one answer (600)"
    )


def _offline(parser: argparse.ArgumentParser) -> None:
    offline = parser.add_argument_group("estimate without a GPU, with --backend and --model as well")
    offline.add_argument("--offline", action="store_true", help="estimate with the package aiconfigurator-core")
    offline.add_argument("--system", metavar="NAME", help="GPU and its node, as h200_sxm")
    offline.add_argument("--backend-version", metavar="V", help="of the engine (default: the package's current one)")
    offline.add_argument(
        "--moe-parallel",
        choices=("ep", "tp"),
        help="experts of a model are divided among the GPUs, or each expert is (default: ep)",
    )


def _targets(parser: argparse.ArgumentParser) -> None:
    targets = parser.add_argument_group("targets, by which TP sizes and loads are chosen")
    tokens = whole(1, MOST_TOKENS)
    milliseconds = number(0, MOST_MS, above=True)
    targets.add_argument("--isl", type=tokens, default=3000, metavar="N", help="tokens of a prompt (default: 3000)")
    targets.add_argument("--osl", type=tokens, default=150, metavar="N", help="tokens of an answer (default: 150)")
    targets.add_argument("--ttft", type=milliseconds, default=500.0, metavar="MS", help="default: 500")
    targets.add_argument("--itl", type=milliseconds, default=50.0, metavar="MS", help="default: 50")
    targets.add_argument(
        "--objective",
        choices=("throughput", "latency", "goodput_per_watt"),
        default="throughput",
        help="what counts among TP sizes that meet the targets: tokens/s/GPU (default), the fastest, or tokens/s/W",
    )


def _sweep(parser: argparse.ArgumentParser) -> None:
    sweep = parser.add_argument_group("sweep")
    tokens = whole(1, MOST_TOKENS)
    sweep.add_argument("--quick", action="store_true", help="fewer points, shorter answers, wider intervals")
    sweep.add_argument(
        "--max-context-length", type=tokens, metavar="N", help="longest context (default: the engine's, at most 16384)"
    )
    sweep.add_argument("--max-kv-tokens", type=tokens, metavar="N", help="size of the KV cache (default: as stated)")
    sweep.add_argument(
        "--max-in-flight", type=whole(1, 100_000), default=512, metavar="N", help="most requests at once (default: 512)"
    )
    sweep.add_argument("--seed", type=whole(0, 2**53), default=0, help="seed of the prompts")


def _power(parser: argparse.ArgumentParser) -> None:
    power = parser.add_argument_group(
        "power",
        "With --caps a guard process sets the limits, never above those it found, and puts them back when this command "
        "ends, however it ends. Where a power agent owns the GPUs, or a bus is named, it sets none: this command asks "
        "over the bus for a hold on them, and planner and agent put them under each cap as far as the budget allows, "
        "until it ends.",
    )
    power.add_argument(
        "--caps",
        type=whole_numbers("caps", 1, MOST_CAP_WATTS),
        default=(),
        metavar="W,W",
        help="measure every point under each of these power limits, in watts per GPU, and under the limit as found",
    )
    power.add_argument(
        "--lock-file", type=Path, metavar="FILE", help=f"the power agent's lock file (default: {LOCK_FILE})"
    )
    add_bus_options(parser)
    power.add_argument(
        "--gpu-folder", type=Path, metavar="FOLDER", help="simulated GPUs, shared with wattscale engine --gpu-folder"
    )


def whole_numbers(what: str, least: int, most: int) -> Callable[[str], tuple[int, ...]]:
    """A type of an option: whole numbers with commas between them, each once."""

    def parse(text: str) -> tuple[int, ...]:
        found = tuple(dict.fromkeys(int(each) for each in re.findall(r"\d{1,9}", text)))
        if not re.fullmatch(r"\d{1,9}(,\d{1,9})*", text) or not all(least <= each <= most for each in found):
            raise argparse.ArgumentTypeError(f"{what} are whole numbers from {least} to {most}, as 1,2; not {text!r}")
        return found

    return parse


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    if args.compare is not None:
        _refuse_others(parser, args, "--compare", frozenset({"compare"}))
        from deploy.profiling.compare_run import run_compare

        return run_compare(*args.compare)
    if args.output_dir is None:
        raise UsageError("--output-dir DIR is missing: the folder for all files")
    if args.offline:
        return _run_offline(parser, args)
    for name in ("system", "backend_version", "moe_parallel"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} goes with --offline")
    return _run_online(args)


def _refuse_others(parser: argparse.ArgumentParser, args: argparse.Namespace, mode: str, used: frozenset[str]) -> None:
    """Raise UsageError for the first option that this mode would ignore."""
    for name, value in vars(args).items():
        if name not in (*used, *COMMAND_WORDS) and value != parser.get_default(name):
            raise UsageError(f"--{name.replace('_', '-')} does not go with {mode}")


def _run_offline(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    _refuse_others(parser, args, "--offline", OFFLINE)
    for name in ("model", "system", "backend"):
        if getattr(args, name) is None:
            raise UsageError(
                f"--offline: --{name} is missing, as in --system h200_sxm --model Qwen/Qwen3-32B --backend vllm"
            )
    from deploy.profiling.offline_run import OfflineOptions, run_offline
    from planner.profiler.analysis.recommendation import Targets

    return run_offline(
        OfflineOptions(
            model=args.model,
            system=args.system,
            backend=BACKENDS[args.backend],
            backend_version=args.backend_version,
            moe=args.moe_parallel,
            tps=args.tp,
            targets=Targets(args.isl, args.osl, args.ttft, args.itl, args.objective),
            max_context=args.max_context_length,
            max_kv_tokens=args.max_kv_tokens,
            max_in_flight=args.max_in_flight,
            output=args.output_dir,
        )
    )


def _run_online(args: argparse.Namespace) -> int:
    given: GivenEngine | None = None
    if args.endpoint is not None:
        if args.backend is not None:
            raise UsageError(ONE_ENGINE)
        for name in ("config", "worker"):
            if getattr(args, name) is not None:
                raise UsageError(f"--{name} goes with --backend")
        check_endpoint(args.endpoint, args.tp)
    elif args.config is not None:
        given = _given_engine(args)
    elif args.backend is None:
        raise UsageError(ONE_ENGINE)
    else:
        raise UsageError(f"--backend {args.backend}: --config FILE is missing; it names the model")
    if args.lock_file is not None and not args.caps:
        raise UsageError("--lock-file goes with --caps")
    for name in ("nats_url", "context"):
        if getattr(args, name) is not None and not args.caps:
            raise UsageError(f"--{name.replace('_', '-')} goes with --caps")
    from deploy.profiling.profile_run import ProfileOptions, run_profile

    return run_profile(
        ProfileOptions(
            endpoint=args.endpoint and args.endpoint.rstrip("/"),
            key=os.environ.get(KEY, ""),
            backend=None if given is None else given.backend,
            config=None if given is None else given.config,
            config_notes=() if given is None else given.notes,
            model=args.model if given is None else None,
            tps=args.tp or (None if given is None else given.tps),
            gpus=args.gpus,
            timeout_s=args.timeout_s,
            isl=args.isl,
            osl=args.osl,
            ttft_ms=args.ttft,
            itl_ms=args.itl,
            objective=args.objective,
            quick=args.quick,
            max_context=args.max_context_length,
            max_kv_tokens=args.max_kv_tokens,
            max_in_flight=args.max_in_flight,
            seed=args.seed,
            output=args.output_dir,
            caps=args.caps,
            lock_file=args.lock_file or Path(LOCK_FILE),
            gpu_folder=args.gpu_folder,
            bus=args,
        )
    )


def _given_engine(args: argparse.Namespace) -> GivenEngine:
    """The engine of --config with the options that are stronger. Raises UsageError."""
    from deploy.profiling.engine_config import read_engine

    given = read_engine(args.config, args.worker)
    backend = args.backend and BACKENDS[args.backend]
    if given.backend is None:
        if backend is None:
            raise UsageError(ONE_ENGINE)
        if args.model is not None:
            raise UsageError("--model goes with --endpoint or a graph; else the file of --config names it")
        return replace(given, backend=backend)
    if backend not in (None, given.backend):
        raise UsageError(f"--backend {args.backend}: the graph of --config {args.config} is for {given.backend}")
    if args.model is None:
        return given
    return replace(given, config=given.config.model_copy(update={"model": args.model}))


def check_endpoint(endpoint: str, tps: tuple[int, ...] | None) -> None:
    """Raises UsageError for an address without a host or with credentials, and for more than one TP size."""
    try:
        parts = urlsplit(endpoint)
        known = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        known = False
    if not known:
        raise UsageError("--endpoint: it is not an address; write http://host:port")
    if parts.username or parts.password:
        raise UsageError(f"--endpoint: it holds credentials; put the key into {KEY}")
    if tps is not None and len(tps) > 1:
        raise UsageError("--tp: an engine that runs has one TP size")
