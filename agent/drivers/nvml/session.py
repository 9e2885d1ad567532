"""One opened NVML library: the calls that are used, and nothing that outlives the driver behind them.

Owns the scopes and events of one opening. It is called from several threads at once, so its content only grows; when
the driver goes away the whole session is dropped instead of being emptied while another thread uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from agent.drivers.nvml.errors import OPTIONAL, translate
from agent.drivers.nvml.events import EventWatch
from agent.drivers.nvml.scope import GpuScope, ModuleScope, Scope
from agent.ports import DRIVER_WIDE_KINDS, DriverError, DriverErrorKind, GpuInfo, GpuReading

T = TypeVar("T")

CLOCK_EVENT_REASONS: Mapping[int, str] = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""Bits of ``nvmlDeviceGetCurrentClocksEventReasons`` by their documented meaning."""


class NvmlSession:
    """``nvml``: the bindings' module, initialised. Raises DriverError."""

    def __init__(self, nvml: Any, power_scope: str) -> None:
        self.nvml = nvml
        self._power_scope = power_scope
        self._scopes: dict[str, Scope] = {}
        self._events: EventWatch | None = None

    def driver_version(self) -> str:
        """The kernel driver's version, for people."""
        nvml = self.nvml
        return str(self._call("driver_version", "", nvml.nvmlSystemGetDriverVersion))

    def enumerate(self) -> tuple[list[GpuInfo], dict[str, DriverError]]:
        """All physical GPUs by index order, and those that fail, by UUID where it is known, else ``index-N``."""
        nvml = self.nvml
        count = self._call("count", "", nvml.nvmlDeviceGetCount)
        failed: dict[str, DriverError] = {}
        found: list[GpuInfo] = []
        for index in range(count):
            name = f"index-{index}"
            try:
                handle = self._call("handle_by_index", name, nvml.nvmlDeviceGetHandleByIndex, index)
                name = self._call("uuid", name, nvml.nvmlDeviceGetUUID, handle)
                found.append(self._describe(index, name, handle))
            except DriverError as error:
                if error.kind in DRIVER_WIDE_KINDS:
                    raise
                failed[name] = error
        if self._events is None:
            self._events = EventWatch.open(nvml, [self._handle(info.gpu) for info in found])
        return found, failed

    def read(self, gpu: str) -> GpuReading:
        """One GPU's state. Limits must answer; optional values may be None."""
        nvml = self.nvml
        handle = self._handle(gpu)
        scope = self._scope(gpu, handle)
        requested = self._call("get_limit", gpu, scope.requested_mw, handle)
        enforced = self._call("enforced", gpu, scope.enforced_mw, handle)
        energy = self._maybe("energy", gpu, nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        bits = self._maybe("reasons", gpu, self._reasons, handle)
        if self._events is not None:
            self._events.drain(lambda device: str(nvml.nvmlDeviceGetUUID(device)))
        return GpuReading(
            gpu=gpu,
            requested_mw=requested,
            enforced_mw=enforced,
            draw_mw=self._maybe("power_usage", gpu, scope.draw_mw, handle),
            energy_mj=energy,
            throttle_reasons=tuple(name for bit, name in CLOCK_EVENT_REASONS.items() if (bits or 0) & bit),
            pids=self._maybe("processes", gpu, self._processes, handle),
            last_xid=self._events.last_xid(gpu) if self._events else None,
        )

    def set_limit(self, gpu: str, mw: int) -> None:
        """Set the limit of the GPU with this UUID, which is verified on the handle that is written to."""
        nvml = self.nvml
        handle = self._handle(gpu)
        found = self._call("uuid", gpu, nvml.nvmlDeviceGetUUID, handle)
        if found != gpu:
            message = f"set_limit: the handle of {gpu} now answers as {found}"
            raise DriverError(DriverErrorKind.NO_SUCH_GPU, message, call="set_limit", gpu=gpu)
        scope = self._scope(gpu, handle)
        self._call("set_limit", gpu, scope.set_limit, handle, mw)

    def _handle(self, gpu: str) -> Any:
        return self._call("handle_by_uuid", gpu, self.nvml.nvmlDeviceGetHandleByUUID, gpu)

    def _describe(self, index: int, gpu: str, handle: Any) -> GpuInfo:
        nvml = self.nvml
        scope = self._scope(gpu, handle)
        default_mw = self._call("default", gpu, scope.default_mw, handle)
        low, high = self._constraints(gpu, scope, handle) or (default_mw, default_mw)
        modes = self._maybe("mig", gpu, nvml.nvmlDeviceGetMigMode, handle)
        persistence = self._maybe("persistence", gpu, nvml.nvmlDeviceGetPersistenceMode, handle)
        return GpuInfo(
            gpu=gpu,
            index=index,
            model=self._maybe("name", gpu, nvml.nvmlDeviceGetName, handle) or "",
            default_mw=default_mw,
            min_mw=low,
            max_mw=high,
            mig=bool(modes and modes[0]),
            persistence=None if persistence is None else bool(persistence),
            mig_instances=self._mig_instances(gpu, handle) if modes and modes[0] else (),
        )

    def _constraints(self, gpu: str, scope: Scope, handle: Any) -> tuple[int, int] | None:
        """None for a card that supports no limit: it is described, and charged, at its default."""
        try:
            return self._call("constraints", gpu, scope.constraints_mw, handle)
        except DriverError as error:
            if error.permanent:
                return None
            raise

    def _reasons(self, handle: Any) -> int:
        nvml = self.nvml
        try:
            return int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        except nvml.NVMLError_FunctionNotFound:
            return int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))

    def _processes(self, handle: Any) -> tuple[int, ...]:
        nvml = self.nvml
        try:
            found = nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)
        except nvml.NVMLError_FunctionNotFound:
            found = nvml.nvmlDeviceGetComputeRunningProcesses_v2(handle)
        return tuple(sorted({int(process.pid) for process in found}))

    def _mig_instances(self, gpu: str, handle: Any) -> tuple[str, ...]:
        nvml = self.nvml
        found = []
        for slot in range(self._maybe("mig", gpu, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            try:
                instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)
                found.append(str(nvml.nvmlDeviceGetUUID(instance)))
            except nvml.NVMLError:
                continue  # An empty slot, or an instance being created or removed: the next enumeration shows it.
        return tuple(found)

    def _scope(self, gpu: str, handle: Any) -> Scope:
        scope = self._scopes.get(gpu)
        if scope is None:
            module = ModuleScope(self.nvml)
            wanted = self._power_scope == "module" or (self._power_scope == "auto" and module.answers(handle))
            scope = self._scopes[gpu] = module if wanted else GpuScope(self.nvml)
        return scope

    def _call(self, call: str, gpu: str, work: Callable[..., T], *args: Any) -> T:
        try:
            return work(*args)
        except self.nvml.NVMLError as error:
            raise translate(error, call, gpu) from error

    def _maybe(self, call: str, gpu: str, work: Callable[..., T], *args: Any) -> T | None:
        """The call's answer, or None where this GPU or driver does not have it. A lost GPU is an error here too."""
        try:
            return self._call(call, gpu, work, *args)
        except DriverError as error:
            if error.kind in OPTIONAL:
                return None
            raise

    def close(self) -> None:
        """Shut NVML down. Limits stay."""
        if self._events is not None:
            self._events.close()
        self._call("shutdown", "", self.nvml.nvmlShutdown)
