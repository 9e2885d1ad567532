"""Stand-ins for two modules that Dynamo's planner imports and that no registry ships.

Owns just the names that the planner and the replay read, bound to the native classes which the runtime's
extension module already contains. It must never add behaviour: with it, Dynamo's own unmodified code runs.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import make_dataclass
from types import ModuleType
from typing import Any


def install() -> None:
    """Put ``aisimulate`` and ``aisimulate_core`` into ``sys.modules`` (needs ``dynamo._core``)."""
    native = _native_module()
    model = native.RustForwardPassPerfModel
    request = _request_class(model)
    _module("aisimulate")
    _module("aisimulate.runner", canonical_performance_config=_canonical)
    _module("aisimulate_core")
    _module("aisimulate_core._native", RustForwardPassPerfModel=model, AicEngine=native.AicEngine)
    _module("aisimulate_core.sdk", RustForwardPassPerfModel=_documents(model), ForwardPassPerfModelConfig=request)


def _native_module() -> Any:
    core = importlib.util.find_spec("dynamo._core")
    if core is None or core.origin is None:
        raise ModuleNotFoundError("dynamo._core is not installed in this environment")
    import dynamo._core  # noqa: F401  the extension must be up before its inner module

    loader = importlib.machinery.ExtensionFileLoader("_runtime", core.origin)
    spec = importlib.util.spec_from_loader("_runtime", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _request_class(model: Any) -> type:
    """A dataclass with the fields and defaults that the native schema itself reports."""
    known = {"model": "m", "system": "s", "backend": "vllm", "worker_type": "prefill"}
    known["estimation_mode"] = "fpm_regression"
    defaults = json.loads(model.normalize_config(json.dumps(known)))
    fields = [(name, Any, None if name in known else value) for name, value in defaults.items()]
    slots = [(name, kind) for name, kind, _ in fields]

    def init(self: Any, **given: Any) -> None:
        unknown = set(given) - set(defaults)
        if unknown:
            raise TypeError(f"unknown fields {sorted(unknown)}")
        for name, _, value in fields:
            setattr(self, name, given.get(name, json.loads(json.dumps(value))))

    def from_legacy(cls: type, engine: Mapping[str, Any], worker_type: str, options: Mapping[str, Any]) -> Any:
        return cls(
            model=engine["model_name"],
            system=engine["system_name"],
            backend=engine["backend"],
            worker_type=worker_type,
            estimator_config=json.loads(model.legacy_estimator_config(json.dumps(options))),
        )

    return make_dataclass(
        "ForwardPassPerfModelConfig",
        slots,
        init=False,
        namespace={
            "__init__": init,
            "to_dict": lambda self: {n: getattr(self, n) for n, _ in slots},
            "from_legacy_engine_config": classmethod(from_legacy),
        },
    )


def _documents(model: Any) -> type:
    """The native model speaks JSON text where the planner speaks mappings and lists."""

    class RustForwardPassPerfModel:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        @classmethod
        def best_available(cls, config: Mapping[str, Any]) -> RustForwardPassPerfModel:
            return cls(model.best_available(json.dumps(config)))

        def tune_with_fpms(self, iterations: Any) -> Any:
            return self._inner.tune_with_fpms(json.dumps(iterations))

        def estimate_forward_pass_time_ms(self, ranks: Any) -> Any:
            return self._inner.estimate_forward_pass_time_ms(json.dumps(ranks))

        def diagnostics(self) -> Any:
            found = self._inner.diagnostics()
            return json.loads(found) if isinstance(found, str) else found

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    return RustForwardPassPerfModel


def _canonical(config: Mapping[str, Any], *, worker_type: str) -> dict[str, Any]:
    return {**config, "worker_type": worker_type}


def _module(name: str, **names: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(names)
    module.__path__ = []
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
