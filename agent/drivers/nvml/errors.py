"""Maps NVML's error numbers to the agent's kinds of error.

Owns the table that decides what each error means for a GPU. The numbers are part of NVML's documented interface.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.ports import DriverError, DriverErrorKind

KINDS: Mapping[int, DriverErrorKind] = {
    1: DriverErrorKind.DRIVER_DOWN,  # UNINITIALIZED
    2: DriverErrorKind.INVALID,  # INVALID_ARGUMENT
    3: DriverErrorKind.UNSUPPORTED,  # NOT_SUPPORTED
    4: DriverErrorKind.NO_PERMISSION,  # NO_PERMISSION
    6: DriverErrorKind.NO_SUCH_GPU,  # NOT_FOUND
    8: DriverErrorKind.GPU_LOST,  # INSUFFICIENT_POWER: external power cables are off, the GPU does not come up
    9: DriverErrorKind.DRIVER_DOWN,  # DRIVER_NOT_LOADED
    10: DriverErrorKind.TIMEOUT,  # TIMEOUT
    11: DriverErrorKind.GPU_LOST,  # IRQ_ISSUE: the kernel found an interrupt problem with the GPU
    12: DriverErrorKind.DRIVER_DOWN,  # LIBRARY_NOT_FOUND
    13: DriverErrorKind.FUNCTION_MISSING,  # FUNCTION_NOT_FOUND
    15: DriverErrorKind.GPU_LOST,  # GPU_IS_LOST
    16: DriverErrorKind.RESET_REQUIRED,  # RESET_REQUIRED
    18: DriverErrorKind.LIBRARY_MISMATCH,  # LIB_RM_VERSION_MISMATCH
    19: DriverErrorKind.NOT_READY,  # IN_USE
    25: DriverErrorKind.FUNCTION_MISSING,  # ARGUMENT_VERSION_MISMATCH: an older driver, another struct
    26: DriverErrorKind.FUNCTION_MISSING,  # DEPRECATED
    27: DriverErrorKind.NOT_READY,  # NOT_READY
    28: DriverErrorKind.NO_SUCH_GPU,  # GPU_NOT_FOUND
    29: DriverErrorKind.NOT_READY,  # INVALID_STATE
}
"""By NVML's number; all others are UNKNOWN, which is retried."""

OPTIONAL = frozenset(
    {
        DriverErrorKind.UNSUPPORTED,
        DriverErrorKind.FUNCTION_MISSING,
        DriverErrorKind.NO_PERMISSION,
        DriverErrorKind.INVALID,
        DriverErrorKind.NOT_READY,
        DriverErrorKind.TIMEOUT,
        DriverErrorKind.UNKNOWN,
    }
)
"""Kinds of error after which an optional value (draw, energy, processes) is left out and nothing else happens."""


def translate(error: Exception, call: str, gpu: str) -> DriverError:
    """``NVMLError`` to ``DriverError``."""
    code = int(getattr(error, "value", 999))
    kind = KINDS.get(code, DriverErrorKind.UNKNOWN)
    return DriverError(kind, f"{call}: {error} (NVML {code})", call=call, gpu=gpu)
