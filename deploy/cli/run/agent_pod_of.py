"""`wattscale agent pod-of`: which pod a process, or the text of a cgroup file, belongs to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from agent.core.cgroup import CgroupIdentity, identify
from agent.drivers.procfs import ProcFs
from bus_schemas.regular_files import read_regular
from bus_schemas.visible_text import visible
from deploy.cli.errors import UsageError

CGROUP_BYTES = 1 << 16


def run_pod_of(pid: int | None, cgroup_file: Path | None, proc_root: Path, *, as_json: bool) -> int:
    """Print the pod. Returns the exit code: 1 when there is none, with the reason on standard error.

    Raises UsageError when the file or the process cannot be read.
    """
    if cgroup_file is not None:
        source = str(cgroup_file)
        try:
            found = identify(read_regular(cgroup_file, CGROUP_BYTES).decode(errors="replace"))
        except OSError as error:
            raise UsageError(f"cgroup file {cgroup_file}: {error.strerror}") from error
    else:
        source = str(proc_root / str(pid) / "cgroup")
        process = ProcFs(proc_root).process(pid if pid is not None else 0)
        if process is None:
            raise UsageError(f"no process {pid} below {proc_root}; name the host's /proc with --proc-root")
        found = process.cgroup
    return _print(found, source, as_json=as_json)


def _print(found: CgroupIdentity, source: str, *, as_json: bool) -> int:
    why = ""
    if found.failure is not None:
        why = f"{found.failure.value}: {found.detail}"
    elif found.monitor:
        why = "monitor: the container runtime's monitor, not the workload"
    fields = {"pod_uid": found.pod_uid, "container_id": found.container_id, "source": source}
    if found.static_pod:
        fields["static_pod"] = "true"
    if why:
        fields["reason"] = why
    if as_json:
        print(json.dumps({**fields, "static_pod": found.static_pod}))
    else:
        for name, value in fields.items():
            if value is not None and name != "reason":
                print(f"{name}: {visible(value)}")
        if why:
            print(f"wattscale: {visible(why)}", file=sys.stderr)
    return 0 if found.pod_uid is not None else 1
