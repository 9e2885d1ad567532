"""Which power a limit limits: the GPU's own, or the whole module's (Grace Hopper: GPU, memory and CPU together).

Owns the pairs of calls for each. The bindings discard the return value of the newer write call, so that call is made
here and its return value is checked.
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

FIELD_AVERAGE, FIELD_INSTANT = 185, 186
FIELD_MIN, FIELD_MAX, FIELD_DEFAULT, FIELD_ENFORCED, FIELD_REQUESTED = 187, 188, 189, 190, 192
SCOPE_GPU, SCOPE_MODULE = 0, 1


class Scope(Protocol):
    """Limits and draw of one handle, in milliwatts. Raises the bindings' errors."""

    def requested_mw(self, handle: Any) -> int: ...
    def enforced_mw(self, handle: Any) -> int: ...
    def default_mw(self, handle: Any) -> int: ...
    def constraints_mw(self, handle: Any) -> tuple[int, int]: ...
    def draw_mw(self, handle: Any) -> int: ...
    def set_limit(self, handle: Any, mw: int) -> None: ...


def read_fields(nvml: Any, handle: Any, scope: int, *fields: int) -> list[int]:
    """Power fields in milliwatts. Raises the bindings' error of the first field that failed."""
    values = nvml.nvmlDeviceGetFieldValues(handle, [(field, scope) for field in fields])
    for value in values:
        if value.nvmlReturn != 0:
            raise nvml.NVMLError(value.nvmlReturn)
    return [int(value.value.uiVal) for value in values]


class GpuScope:
    """The classic calls, present on every driver."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def requested_mw(self, handle: Any) -> int:
        return int(self._nvml.nvmlDeviceGetPowerManagementLimit(handle))

    def enforced_mw(self, handle: Any) -> int:
        return int(self._nvml.nvmlDeviceGetEnforcedPowerLimit(handle))

    def default_mw(self, handle: Any) -> int:
        return int(self._nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle))

    def constraints_mw(self, handle: Any) -> tuple[int, int]:
        low, high = self._nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
        return int(low), int(high)

    def draw_mw(self, handle: Any) -> int:
        """The instant field, else the average field, else the older call (a mean over a second since Ampere)."""
        for field in (FIELD_INSTANT, FIELD_AVERAGE):
            try:
                return read_fields(self._nvml, handle, SCOPE_GPU, field)[0]
            except (self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_FunctionNotFound):
                continue
        return int(self._nvml.nvmlDeviceGetPowerUsage(handle))

    def set_limit(self, handle: Any, mw: int) -> None:
        self._nvml.nvmlDeviceSetPowerManagementLimit(handle, mw)


class ModuleScope:
    """The module's power through scoped fields and the scoped write."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def answers(self, handle: Any) -> bool:
        """Whether this card has a module scope: every other card answers "not supported"."""
        try:
            return self.constraints_mw(handle)[1] > 0
        except self._nvml.NVMLError:
            return False

    def requested_mw(self, handle: Any) -> int:
        return read_fields(self._nvml, handle, SCOPE_MODULE, FIELD_REQUESTED)[0]

    def enforced_mw(self, handle: Any) -> int:
        return read_fields(self._nvml, handle, SCOPE_MODULE, FIELD_ENFORCED)[0]

    def default_mw(self, handle: Any) -> int:
        return read_fields(self._nvml, handle, SCOPE_MODULE, FIELD_DEFAULT)[0]

    def constraints_mw(self, handle: Any) -> tuple[int, int]:
        low, high = read_fields(self._nvml, handle, SCOPE_MODULE, FIELD_MIN, FIELD_MAX)
        return low, high

    def draw_mw(self, handle: Any) -> int:
        return read_fields(self._nvml, handle, SCOPE_MODULE, FIELD_INSTANT)[0]

    def set_limit(self, handle: Any, mw: int) -> None:
        value = self._nvml.c_nvmlPowerValue_v2_t()
        value.version, value.powerScope, value.powerValueMw = self._nvml.nvmlPowerValue_v2, SCOPE_MODULE, mw
        write = getattr(self._nvml.nvmlLib, "nvmlDeviceSetPowerManagementLimit_v2", None)
        if write is None:
            raise self._nvml.NVMLError(self._nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        result = write(handle, ctypes.byref(value))
        if result != 0:
            raise self._nvml.NVMLError(result)
