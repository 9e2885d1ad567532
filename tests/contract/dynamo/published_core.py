"""The decision core of ai-dynamo 0.9.1 as released: its ``Planner``, fed with intervals in place of a cluster.

Its connectors, its Prometheus client and its native runtime are not part of a decision; stand-ins take their place, so
that the wheel alone is enough. Runs in the environment of ``environment.py`` only.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import types
from collections.abc import Mapping, Sequence
from typing import Any

Counts = tuple[int, int]
MODEL = "model"
START = "start"


def _stand_ins() -> None:
    """Modules that 0.9.1 imports and a decision does not use."""

    class Anything:
        def __init__(self, *_: object, **__: object) -> None: ...

        def __getattr__(self, _: str) -> Anything:
            return Anything()

        def __call__(self, *_: object, **__: object) -> Anything:
            return Anything()

    def module(name: str, **names: object) -> None:
        made = types.ModuleType(name)
        made.__dict__.update(names)
        sys.modules[name] = made

    def nothing() -> None: ...

    module("dynamo.runtime", DistributedRuntime=Anything, dynamo_worker=Anything())
    module("dynamo.runtime.logging", configure_dynamo_logging=nothing)
    module("dynamo._core", VirtualConnectorCoordinator=Anything)
    module("dynamo.prometheus_names", name_prefix=Anything(), frontend_service=Anything())
    module("prometheus_api_client", PrometheusConnect=Anything)
    module("kubernetes", client=Anything(), config=Anything())
    module("kubernetes.config.config_exception", ConfigException=RuntimeError)
    try:
        importlib.import_module("prophet")
    except ImportError:
        module("prophet", Prophet=Anything)


def flags(config: Mapping[str, Any]) -> list[str]:
    """0.9.1's settings as its own flags."""
    return [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in config.items()]


_READ: dict[tuple[str, object], Any] = {}


def _once(interpolator: Any) -> Any:
    """The same interpolator for the same profile: reading one takes longer than all decisions of a sequence."""

    def made(profile: object) -> Any:
        kind = getattr(interpolator, "kind", interpolator)
        key = (kind.__name__, profile)
        if key not in _READ:
            _READ[key] = kind(profile)
        return _READ[key]

    made.kind = getattr(interpolator, "kind", interpolator)  # type: ignore[attr-defined]
    return made


class PublishedPlanner:
    """One planner of 0.9.1 with the settings of a sequence. Its orders are carried out at once."""

    def __init__(self, config: Mapping[str, Any], profile: str) -> None:
        _stand_ins()
        logging.disable(logging.CRITICAL)
        parser = importlib.import_module("dynamo.planner.utils.planner_argparse").create_sla_planner_parser()
        core: Any = importlib.import_module("dynamo.planner.utils.planner_core")
        core.PrefillInterpolator = _once(core.PrefillInterpolator)
        core.DecodeInterpolator = _once(core.DecodeInterpolator)
        self._args = parser.parse_args([f"--profile-results-dir={profile}", *flags(config)])
        self._planner = core.Planner(None, self._args, dryrun=True)
        self._planner.dryrun = False
        self._planner.no_correction = self._args.no_correction
        self._planner.prometheus_port = 0
        self._planner.last_metrics = core.Metrics()
        self._planner.model_name = MODEL
        self._planner.connector = self
        self._planner.prometheus_api_client = self
        self._planner.get_workers_info = self._workers
        self._interval: Mapping[str, float] = {}
        least = self._args.min_endpoint
        self.counts: Counts = (least, least)

    def decide(self, interval: Mapping[str, float]) -> Counts:
        """The counts in force after one interval."""
        self._interval = interval
        asyncio.run(self._tick())
        return self.counts

    async def _tick(self) -> None:
        await self._planner.observe_metrics()
        await self._planner.make_adjustments()

    async def _workers(self) -> tuple[list[int], list[int]]:
        return list(range(self.counts[0])), list(range(self.counts[1]))

    async def set_component_replicas(self, targets: Sequence[Any], *, blocking: bool) -> None:
        """The connector's one method that decisions use."""
        assert not blocking
        prefill, decode = targets
        self.counts = (prefill.desired_replicas, decode.desired_replicas)

    # What 0.9.1 asks of its Prometheus client, in its own units.
    def get_avg_time_to_first_token(self, _: str, __: str) -> float:
        return self._interval["ttft_s"]

    def get_avg_inter_token_latency(self, _: str, __: str) -> float:
        return self._interval["itl_s"]

    def get_avg_request_count(self, _: str, __: str) -> float:
        return self._interval["num_req"]

    def get_avg_request_duration(self, _: str, __: str) -> float:
        return self._interval["request_duration_s"]

    def get_avg_input_sequence_tokens(self, _: str, __: str) -> float:
        return self._interval["isl"]

    def get_avg_output_sequence_tokens(self, _: str, __: str) -> float:
        return self._interval["osl"]
