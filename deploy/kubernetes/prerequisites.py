"""What `deploy/kubernetes/try` needs on this machine, one line for each."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.kubernetes.in_cluster import TOKEN
from deploy.kubernetes.pinned import OLDEST_HELM
from deploy.kubernetes.watched_command import Programs, TryError

CLUSTER_PROGRAMS = ("kind", "minikube")
"""The first that is found is taken."""
VERSION = re.compile(r"v?(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """One thing that is needed. ``missing``: why it does not do and what to do; empty where it does."""

    name: str
    found: str = ""
    missing: str = ""

    def __str__(self) -> str:
        return f"missing  {self.name}: {self.missing}" if self.missing else f"ok       {self.name}: {self.found}"


def found_program(path: str, wanted: str = "") -> str:
    """The program that makes clusters: the one ``wanted``, else the first on ``path``; empty where there is none."""
    return wanted or next((name for name in CLUSTER_PROGRAMS if shutil.which(name, path=path)), "")


def prerequisites(programs: Programs, cluster_program: str, *, token: str | None) -> Iterator[Prerequisite]:
    """All that is needed, with what was found. ``token`` None: none is needed; its value is not shown."""
    path = programs.environment.get("PATH", "")
    yield _engine(programs, path)
    yield _on_path("kubectl", path, "install kubectl, within one minor version of the cluster's")
    yield _helm(programs, path)
    if cluster_program:
        yield _on_path(cluster_program, path, "install it, or leave out --with")
    else:
        yield Prerequisite("kind or minikube", missing="neither is on PATH; install one of them")
    if token is not None:
        why = f"the graph's model needs it: export {TOKEN}"
        yield Prerequisite(TOKEN, "set") if token else Prerequisite(TOKEN, missing=why)


def _on_path(name: str, path: str, remedy: str) -> Prerequisite:
    where = shutil.which(name, path=path)
    return Prerequisite(name, where) if where else Prerequisite(name, missing=f"not on PATH; {remedy}")


def _engine(programs: Programs, path: str) -> Prerequisite:
    found = _on_path("docker", path, "install the Docker engine")
    if found.missing:
        return found
    try:
        version = programs.answer(["docker", "info", "--format", "{{.ServerVersion}}"], "docker").strip()
    except TryError as error:
        return Prerequisite("docker", missing=f"the engine does not answer; start it ({error})")
    return Prerequisite("docker", f"engine {version}")


def _helm(programs: Programs, path: str) -> Prerequisite:
    oldest = ".".join(map(str, OLDEST_HELM))
    found = _on_path("helm", path, f"install Helm {oldest} or newer")
    if found.missing:
        return found
    try:
        shown = programs.answer(["helm", "version", "--template", "{{.Version}}"], "helm").strip()
    except TryError as error:
        return Prerequisite("helm", missing=str(error))
    version = VERSION.match(shown)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_HELM:
        return Prerequisite("helm", missing=f"{shown or 'no version'} is too old; install {oldest} or newer")
    return Prerequisite("helm", shown)
