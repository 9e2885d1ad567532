"""Stand-ins for kind, minikube, kubectl, helm and docker: they record each call and keep what a cluster would be."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.kubernetes.in_cluster import Manifest

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = ("kind", "minikube", "kubectl", "helm", "docker")
OWN_NAME = "wattscale-try"
TOOLS = ("bash", "cat", "cp", "dirname", "env", "find", "git", "mktemp", "rm", "sed", "sh")
# Its files: clusters.kind and .minikube, broken (no way to the API), labelled, base, revision, job, applied.N.
SCRIPT = """#!/bin/sh
name=${0##*/}
cd "$STANDINS"
printf '%s\\036' "$name $*" >>record
calls=0
[ ! -e count ] || read -r calls <count
calls=$((calls + 1))
echo $calls >count
[ -z "${HF_TOKEN:-}" ] || { echo "the token is in the environment" >&2; exit 98; }
[ "$name" = docker ] || [ "$KUBECONFIG" = "$OWN_KUBECONFIG" ] || { echo "another cluster" >&2; exit 97; }
[ "$calls" != "${FAIL_AT:-}" ] || { echo "call $calls was made to fail" >&2; exit 9; }
case "$name $*" in
  "kind get clusters") [ ! -e clusters.kind ] || cat clusters.kind ;;
  "kind create cluster"*) echo wattscale-try >clusters.kind ;;
  "kind export kubeconfig"*) [ ! -e broken ] || { echo "no access to it" >&2; exit 1; } ;;
  "kind delete cluster"* | "minikube delete"*) rm -f clusters.kind clusters.minikube broken labelled ;;
  "minikube profile list"*)
    [ ! -e clusters.minikube ] || profile='{"Name":"wattscale-try"}'
    echo "{\\"valid\\":[$profile]}" ;;
  "minikube start"*) : >clusters.minikube; rm -f broken ;;
  "minikube update-context"*) [ ! -e broken ] || exit 1 ;;
  "kubectl label nodes"*) : >labelled ;;
  "kubectl get nodes"*) [ ! -e labelled ] || echo node/one ;;
  "kubectl "*" apply "*) cat >"applied.$calls" ;;
  "kubectl "*" get job "*) cat job 2>/dev/null || echo Complete ;;
  "kubectl "*" get pods "*) echo "agent-1 node-1" ;;
  "kubectl "*" logs "*) echo "the verifier's lines" ;;
  "helm version"*) echo "${HELM_VERSION:-v3.18.1}" ;;
  "docker info"*) echo 27.1 ;;
  "docker pull"*) : >base ;;
  "docker build"*) git -C "$CHECKOUT" rev-parse HEAD >revision; echo sha256:built ;;
  "docker image inspect python:"*) [ -e base ] ;;
  *RepoDigests*) echo "python@sha256:$(printf '%064d' 7)" ;;
  "docker image inspect"*Labels*) cat revision ;;
  "docker image inspect"*Id*) echo "sha256:$(printf '%064d' 5)" ;;
esac
"""
BUILD = """#!/bin/sh
docker build --build-arg "BASE=$2" --tag "wattscale/planner:$4" .
docker build --build-arg "BASE=$2" --tag "wattscale/agent:$4" .
"""


@dataclass
class RecordedPrograms:
    """``folder`` holds the programs and what they keep; ``checkout`` is a small one whose images build at once."""

    folder: Path
    checkout: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def state(self) -> Path:
        return self.folder / "home" / "wattscale" / "try" / OWN_NAME

    def calls(self) -> list[str]:
        """All calls until now, each with its arguments."""
        record = self.folder / "record"
        return record.read_text().split("\x1e")[:-1] if record.exists() else []

    def forget_calls(self) -> None:
        for name in ("record", "count"):
            (self.folder / name).unlink(missing_ok=True)

    def keep(self, name: str, text: str = "") -> None:
        """Put a file into the stand-ins' folder: what a cluster would be."""
        (self.folder / name).write_text(text)

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def applied(self) -> list[Manifest]:
        """All objects that kubectl was given on its standard input."""
        files = sorted(self.folder.glob("applied.*"), key=lambda file: int(file.suffix[1:]))
        return [one for file in files for one in json.loads(file.read_text())["items"]]

    def without(self, *programs: str) -> None:
        for program in programs:
            (self.folder / "bin" / program).unlink()


def recorded_programs(folder: Path, environment: Any) -> RecordedPrograms:
    """Make them, and let ``environment`` (pytest's monkeypatch) find them and no others of these names."""
    checkout = folder / "checkout"
    for name in ("bin", "home"):
        (folder / name).mkdir()
    for program in PROGRAMS:
        _executable(folder / "bin" / program, SCRIPT)
    _executable(checkout / "deploy" / "images" / "build", BUILD)
    _executable(checkout / "deploy" / "helm" / "prove-agent", (ROOT / "deploy/helm/prove-agent").read_text())
    git = ["git", "-C", str(checkout), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "one"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    made = RecordedPrograms(folder, checkout)
    environment.setenv("PATH", f"{folder / 'bin'}:{_tools(folder / 'tools')}")
    environment.setenv("XDG_STATE_HOME", str(folder / "home"))
    environment.setenv("STANDINS", str(folder))
    environment.setenv("OWN_KUBECONFIG", str(made.kubeconfig))
    environment.setenv("CHECKOUT", str(checkout))
    environment.setenv("KUBECONFIG", "/somewhere/else")
    environment.delenv("HF_TOKEN", raising=False)
    return made


def _tools(folder: Path) -> Path:
    """A folder with what scripts need of this machine, and none of the programs that have stand-ins."""
    folder.mkdir()
    for name in TOOLS:
        where = shutil.which(name)
        assert where, f"no {name} on this machine"
        (folder / name).symlink_to(where)
    return folder


def _executable(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
