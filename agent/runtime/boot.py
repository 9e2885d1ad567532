"""Names this process and the machine's boot, so that a lease never outlives the clock it is measured on."""

from __future__ import annotations

import uuid
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_name() -> str:
    """``<machine boot>/<process>``. Without a boot id from the kernel, each process counts as its own boot."""
    process = uuid.uuid4().hex[:12]
    return f"{machine_boot() or process}/{process}"


def machine_boot() -> str:
    """Which start of the machine this is; empty where the kernel does not say."""
    try:
        return boot_id()
    except OSError:
        return ""


def boot_id() -> str:
    """Which start of the machine this is. Raises OSError where the kernel does not say."""
    return BOOT_ID.read_text().strip()
