"""kind and minikube, as far as the evaluation needs them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.kubernetes.pinned import KIND_NODE, KUBERNETES
from deploy.kubernetes.watched_command import Programs, TryError

CREATE_S, LOAD_S, DELETE_S = 900.0, 600.0, 300.0
READY_S = 300
"""Of those, for the node to be ready once it runs."""
MINIKUBE_CPUS, MINIKUBE_MEMORY_MB = 4, 8192


class ClusterProgram(Protocol):
    """A program that makes clusters. Every method raises TryError."""

    @property
    def name(self) -> str:
        """The command."""
        ...

    def exists(self) -> bool:
        """Whether there is a cluster of our name, whoever made it and however whole it is."""
        ...

    def create(self) -> None:
        """Make it, with its access in our kubeconfig."""
        ...

    def access(self) -> None:
        """Write the way to one that exists into our kubeconfig, and change nothing else."""
        ...

    def start(self) -> None:
        """Start one that has stopped, where the program can do that."""
        ...

    def load(self, image: str) -> None:
        """Copy an image of the Docker engine to its nodes."""
        ...

    def delete(self) -> None:
        """Remove it; no error where nothing is there."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """Nodes are containers."""

    programs: Programs
    cluster: str
    kubeconfig: Path
    name: str = "kind"

    def exists(self) -> bool:
        """Also one whose making was cut off."""
        return self.cluster in self.programs.answer(["kind", "get", "clusters"], "kind").split()

    def create(self) -> None:
        """One node; the image is named by its digest."""
        words = ["kind", "create", "cluster", *self._named(), "--image", KIND_NODE, "--wait", f"{READY_S}s"]
        self.programs.run([*words, *self._access()], "the cluster", CREATE_S)

    def access(self) -> None:
        """Fails for a cluster whose making was cut off."""
        self.programs.answer(
            ["kind", "export", "kubeconfig", *self._named(), *self._access()], "the way to the cluster"
        )

    def start(self) -> None:
        """Nothing: its containers start with the Docker engine."""

    def load(self, image: str) -> None:
        """Quick where the node has it."""
        self.programs.run(["kind", "load", "docker-image", image, *self._named()], f"image {image}", LOAD_S)

    def delete(self) -> None:
        """Containers and access."""
        words = ["kind", "delete", "cluster", *self._named(), *self._access()]
        self.programs.run(words, "removing the cluster", DELETE_S)

    def _named(self) -> list[str]:
        return ["--name", self.cluster]

    def _access(self) -> list[str]:
        return ["--kubeconfig", str(self.kubeconfig)]


@dataclass(frozen=True, slots=True)
class Minikube:
    """With Docker's driver, as kind; it writes to the kubeconfig that KUBECONFIG names."""

    programs: Programs
    cluster: str
    name: str = "minikube"

    def exists(self) -> bool:
        """Also one that minikube calls invalid."""
        shown = self.programs.answer(["minikube", "profile", "list", "--output", "json"], "minikube")
        try:
            found = json.loads(shown)
            profiles = [*(found.get("valid") or ()), *(found.get("invalid") or ())]
            return any(profile["Name"] == self.cluster for profile in profiles)
        except (ValueError, AttributeError, TypeError, KeyError) as error:
            raise TryError("minikube: its list of profiles cannot be read: see `minikube profile list`") from error

    def create(self) -> None:
        """One node."""
        words = ["minikube", "start", *self._named(), "--driver", "docker", "--kubernetes-version", KUBERNETES]
        words += ["--cpus", str(MINIKUBE_CPUS), "--memory", f"{MINIKUBE_MEMORY_MB}mb"]
        self.programs.run([*words, "--wait", "all", "--wait-timeout", f"{READY_S}s"], "the cluster", CREATE_S)

    def access(self) -> None:
        """Without starting it."""
        self.programs.answer(["minikube", "update-context", *self._named()], "the way to the cluster")

    def start(self) -> None:
        """One that runs is left as it is."""
        self.create()

    def load(self, image: str) -> None:
        """Into the node's own store."""
        self.programs.run(["minikube", "image", "load", image, *self._named()], f"image {image}", LOAD_S)

    def delete(self) -> None:
        """Containers and access."""
        self.programs.run(["minikube", "delete", *self._named()], "removing the cluster", DELETE_S)

    def _named(self) -> list[str]:
        return ["--profile", self.cluster]
