"""`wattscale load`: requests at their times against an endpoint that speaks OpenAI's interface."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from urllib.parse import urlsplit

from deploy.cli.errors import UsageError
from deploy.cli.numbers import LONGEST_S, MOST_MS, number, whole

KEY = "WATTSCALE_LOAD_API_KEY"
MOST_TOKENS = 1_000_000
MOST_REQUESTS = 10_000_000
DEFAULT_DURATION_S = 60.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "load",
        help="send requests to an OpenAI endpoint and measure its answers",
        description="Sends streamed requests at times that do not depend on the answers (an open loop): Poisson "
        "arrivals of one length, or a trace. Prints TTFT, ITL and the share of good requests. Exit code 1: a request "
        f"failed, none completed, or too few were good. A key for the endpoint comes from {KEY}.",
    )
    parser.add_argument("--url", required=True, help="the endpoint's address, without /v1")
    parser.add_argument("--model", required=True, help="the name of the model")
    parser.add_argument("--api", choices=("completions", "chat"), default="completions", help="default: completions")
    parser.add_argument(
        "--rate", type=number(0, 1e5, above=True), default=1.0, metavar="R", help="requests per second (default: 1)"
    )
    parser.add_argument("--isl", type=whole(1, MOST_TOKENS), default=512, metavar="N", help="words of a prompt (512)")
    parser.add_argument("--osl", type=whole(1, MOST_TOKENS), default=128, metavar="N", help="tokens of an answer (128)")
    parser.add_argument("--trace", type=Path, help="Mooncake JSONL or CSV, in place of --rate, --isl and --osl")
    parser.add_argument(
        "--speed", type=number(0, 1e6, above=True), metavar="X", help="replay the trace at this many times its speed"
    )
    parser.add_argument("--requests", type=whole(1, MOST_REQUESTS), metavar="N", help="stop after N requests")
    parser.add_argument(
        "--duration",
        type=number(0, LONGEST_S, above=True),
        metavar="S",
        help="send for S seconds (default: 60, or as --requests and the trace say)",
    )
    parser.add_argument("--ttft-ms", type=number(0, MOST_MS, above=True), default=1000.0, metavar="MS", help="target")
    parser.add_argument("--itl-ms", type=number(0, MOST_MS, above=True), default=40.0, metavar="MS", help="target")
    parser.add_argument(
        "--min-good", type=number(0, 1), metavar="SHARE", help="exit code 1 where fewer requests are good"
    )
    parser.add_argument(
        "--timeout-s", type=number(0, LONGEST_S, above=True), default=600.0, metavar="S", help="for one answer (600)"
    )
    parser.add_argument(
        "--max-in-flight",
        type=whole(1, 100_000),
        default=5000,
        metavar="N",
        help="requests beyond it are not sent, and count as failed (default: 5000)",
    )
    parser.add_argument("--seed", type=whole(0, 2**53), default=0, help="seed of the arrivals")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    try:
        parts = urlsplit(args.url)
        known = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        known = False
    if not known:
        raise UsageError("--url: it is not an address; write http://host:port")
    if parts.username or parts.password:
        raise UsageError(f"--url: it holds credentials; put the key into {KEY}")
    if args.speed is not None and args.trace is None:
        raise UsageError("--speed goes with --trace")
    from deploy.load.load_client import LoadTarget
    from deploy.load.load_run import LoadOptions, run_load

    endless = args.trace is None and args.requests is None
    key = os.environ.get(KEY, "")
    target = LoadTarget(args.url.rstrip("/"), args.model, args.api == "chat", key, args.timeout_s, args.max_in_flight)
    return run_load(
        LoadOptions(
            target=target,
            rate_per_s=args.rate,
            isl=args.isl,
            osl=args.osl,
            trace=args.trace,
            speed=args.speed or 1.0,
            requests=args.requests,
            duration_s=DEFAULT_DURATION_S if args.duration is None and endless else args.duration,
            ttft_ms=args.ttft_ms,
            itl_ms=args.itl_ms,
            min_good=args.min_good,
            seed=args.seed,
            json=args.json,
        )
    )
