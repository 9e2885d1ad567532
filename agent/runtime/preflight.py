"""`wattscale agent check`: what the agent needs on this node, what is missing, and how to fix it.

Owns the checks and the remedies. Changes nothing: it sets no limit and writes no object.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agent.adapters.kubernetes.api import ApiError, KubernetesApi
from agent.adapters.kubernetes.pods import PODS
from agent.adapters.pod_resources.kubelet import PodResources
from agent.drivers.off_loop import OffLoopDriver
from agent.drivers.procfs import ProcFs
from agent.ports import DriverError, DriverErrorKind, GpuDriver, GpuInfo, OwnersUnknownError

CAP_SYS_ADMIN = 21


class Status(StrEnum):
    """The result of one check."""

    OK = "ok"
    WARN = "warn"
    """Works, with restrictions."""
    FAIL = "fail"
    SKIP = "skip"
    """Not checked, because the settings do not need it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. ``remedy`` is empty if nothing has to be done."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


_DRIVER_REMEDY = {
    DriverErrorKind.DRIVER_DOWN: "install the NVIDIA driver and nvidia-ml-py; in a pod set runtimeClassName: nvidia "
    "and NVIDIA_VISIBLE_DEVICES=all",
    DriverErrorKind.LIBRARY_MISMATCH: "the driver was updated under a running system: reboot, or reload the module",
    DriverErrorKind.TIMEOUT: "the driver hangs: check for XID errors in the kernel log; the GPU may need a reset",
}


async def check_driver(driver: GpuDriver, timeout_s: float) -> list[Finding]:
    """Whether GPUs answer, with their models and limits."""
    off_loop = OffLoopDriver(driver, timeout_s=timeout_s)
    try:
        infos = await off_loop.enumerate()
    except DriverError as error:
        remedy = _DRIVER_REMEDY.get(error.kind, "see the message; nvidia-smi should show the same")
        return [Finding("driver", Status.FAIL, str(error), remedy)]
    findings = [Finding("driver", Status.OK if infos else Status.FAIL, f"{len(infos)} GPUs", "" if infos else "no GPU")]
    for name, failed in off_loop.failed().items():
        findings.append(Finding(f"gpu {name}", Status.FAIL, str(failed), "drain the node and reset the GPU"))
    findings += [await _check_gpu(off_loop, info) for info in infos]
    findings.append(_persistence(infos))
    await off_loop.close()
    return findings


async def _check_gpu(driver: OffLoopDriver, info: GpuInfo) -> Finding:
    limits = f"{info.min_mw / 1000:g} to {info.max_mw / 1000:g} W, default {info.default_mw / 1000:g} W"
    try:
        reading = await driver.read(info.gpu)
    except DriverError as error:
        return Finding(f"gpu {info.gpu}", Status.FAIL, f"{info.model}: {error}", "check for XID errors; reset the GPU")
    enforced = "unknown" if reading.enforced_mw is None else f"{reading.enforced_mw / 1000:g} W"
    detail = f"{info.model}: {limits}; in force {enforced}"
    if info.min_mw == info.max_mw:
        return Finding(f"gpu {info.gpu}", Status.WARN, detail, "no limit supported: it is charged at its default")
    if info.mig:
        return Finding(
            f"gpu {info.gpu}", Status.WARN, detail + "; MIG", "a limit is the whole GPU's, for all instances"
        )
    return Finding(f"gpu {info.gpu}", Status.OK, detail)


def _persistence(infos: Sequence[GpuInfo]) -> Finding:
    off = [info.gpu for info in infos if info.persistence is False]
    if not off:
        return Finding("persistence mode", Status.OK, "on, or not reported")
    remedy = (
        "run nvidia-persistenced (or nvidia-smi -pm 1): without it the driver unloads when idle and limits are lost"
    )
    return Finding("persistence mode", Status.WARN, f"off on {len(off)} GPUs", remedy)


def check_rights(status: Path = Path("/proc/self/status")) -> Finding:
    """Whether this process may set limits: root, or CAP_SYS_ADMIN."""
    try:
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        effective = int(lines["CapEff"], 16)
    except (OSError, KeyError, ValueError):
        effective = -1 if os.geteuid() == 0 else 0
    if effective >> CAP_SYS_ADMIN & 1:
        return Finding("rights", Status.OK, "CAP_SYS_ADMIN is in force")
    return Finding(
        "rights", Status.FAIL, "no limit can be set without CAP_SYS_ADMIN", "run as root; in a pod: privileged"
    )


def check_processes(procfs: ProcFs, root: Path) -> Finding:
    """Whether this process sees the same process ids as the GPU driver."""
    if procfs.shows_host():
        return Finding("host processes", Status.OK, f"{root} is the host's")
    remedy = "set hostPID: true, or mount the host's /proc and name it with --proc-root"
    return Finding(
        "host processes", Status.WARN, f"{root} is not the host's: processes cannot be matched to pods", remedy
    )


async def check_kubelet(kubelet: PodResources, socket: Path) -> Finding:
    """Whether the kubelet reports assignments."""
    if not kubelet.present():
        remedy = (
            "mount /var/lib/kubelet/pod-resources from the host; without it pods are found when their processes run"
        )
        return Finding("pod-resources", Status.WARN, f"no socket at {socket}", remedy)
    try:
        found = await kubelet.list()
    except OwnersUnknownError as error:
        return Finding("pod-resources", Status.FAIL, str(error), "check the kubelet's log; is the socket stale?")
    return Finding("pod-resources", Status.OK, f"{len(found)} devices assigned")


async def check_api(api: KubernetesApi, node: str) -> list[Finding]:
    """Whether the pods of this node can be listed."""
    findings = []
    try:
        found = await api.get(PODS, {"fieldSelector": f"spec.nodeName={node}", "limit": "1"})
        some = "has pods" if found.get("items") else "has no pods: is the name right?"
        findings.append(
            Finding("kubernetes pods", Status.OK if found.get("items") else Status.WARN, f"node {node} {some}")
        )
    except ApiError as error:
        remedy = (
            "bind the service account to a ClusterRole with get, list, watch on pods"
            if error.status in (401, 403)
            else ("is the API server reachable from here? (--kubeconfig)")
        )
        findings.append(Finding("kubernetes pods", Status.FAIL, str(error), remedy))
    return findings


async def bounded(name: str, work: Callable[[], Awaitable[list[Finding]]], timeout_s: float) -> list[Finding]:
    """Run one group of checks with a time-out."""
    try:
        async with asyncio.timeout(timeout_s):
            return await work()
    except TimeoutError:
        return [Finding(name, Status.FAIL, f"no answer within {timeout_s:g} s", "a connection in between hangs")]
