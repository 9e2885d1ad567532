"""`wattscale profile --offline`: from its options to its files and exit code, without a GPU and without an engine."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.cli.errors import CliError, NotNowError, UsageError
from deploy.profiling.written_results import make_folder, write_results
from planner.profiler.analysis.recommendation import Targets
from planner.profiler.offline.estimate_run import EstimateOptions, estimated
from planner.profiler.offline.kernel_estimates import (
    BATCHED_TOKENS,
    KV_MEMORY_SHARE,
    EstimatedEngine,
    EstimateError,
    MoeParallel,
    chosen_model,
    package_version,
)

PACKAGE = "aiconfigurator_core"
MISSING = "--offline needs the package aiconfigurator-core: pip install 'wattscale[profile-offline]'"
LOG = "estimates.log"
TPS = (1, 2, 4, 8)
"""The GPUs of one node."""
MAX_CONTEXT = 16_384
"""As in Dynamo's profiler."""


@dataclass(frozen=True, slots=True)
class OfflineOptions:
    """Options of one run; None where the package or the estimate decides."""

    model: str
    system: str
    backend: str
    backend_version: str | None
    moe: MoeParallel | None
    tps: tuple[int, ...] | None
    targets: Targets
    max_context: int | None
    max_kv_tokens: int | None
    max_in_flight: int
    output: Path


def run_offline(options: OfflineOptions) -> int:
    """Estimate, write, print, and return the exit code 0. Raises UsageError and CliError."""
    try:
        what = chosen_model(options.model, options.system, options.backend, options.backend_version, options.moe)
    except ImportError as error:
        raise NotNowError(MISSING) from error
    except EstimateError as error:
        raise UsageError(str(error)) from error
    if options.max_context is not None and options.max_context > what.max_context:
        raise UsageError(f"--max-context-length {options.max_context}: {what.model} takes at most {what.max_context}")
    make_folder(options.output)
    asked = EstimateOptions(
        options.model,
        options.targets,
        options.tps or TPS,
        options.max_context or min(what.max_context, MAX_CONTEXT),
        options.max_in_flight,
        options.max_kv_tokens,
    )
    with _package_log(options.output / LOG):
        try:
            profiled = estimated(asked, lambda tp: EstimatedEngine(what, tp, asked.max_in_flight), EstimateError)
        except (EstimateError, ValueError) as error:
            raise CliError(str(error)) from error
    source = {
        "model": what.model,
        "system": what.system,
        "backend": what.backend,
        "db_version": what.version,
        "moe_parallel": what.moe,
        "kv_mem_fraction": KV_MEMORY_SHARE,
        "max_num_batched_tokens": BATCHED_TOKENS,
        "max_context": asked.max_context,
        "source": f"estimated by wattscale profile --offline with aiconfigurator-core {package_version()}",
    }
    write_results(options.output, profiled, options.targets, source, profiled.notes)
    return 0


@contextlib.contextmanager
def _package_log(file: Path) -> Iterator[None]:
    """The package's warnings, mostly of tables that are not used, go to a file. It is there where there were any."""
    logger = logging.getLogger(PACKAGE)
    handler = logging.FileHandler(file, mode="w", encoding="utf-8", delay=True)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.propagate = before
