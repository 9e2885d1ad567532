"""The one cluster that `deploy/kubernetes/try` makes and removes, and how it knows that it made it.

A note in the state folder is written before the cluster is made, and its nodes get a label afterwards. A cluster of the
same name with neither belongs to somebody else: it is neither used nor removed.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.kubernetes.cluster_programs import ClusterProgram
from deploy.kubernetes.watched_command import Programs, TryError, show

MADE_BY = "wattscale.io/made-by=try"
GPU_NODE = "nvidia.com/gpu.present=true"
"""What the chart's agents run on. The GPUs are simulated."""
PAUSE_S = 3.0


@dataclass(frozen=True, slots=True)
class StateFolder:
    """What is kept between runs: which program made the cluster, and the way to it."""

    path: Path

    @property
    def kubeconfig(self) -> Path:
        """Access to this cluster and no other."""
        return self.path / "kubeconfig"

    @property
    def made_with(self) -> str:
        """The program that the cluster is, or was being, made with; empty: none."""
        try:
            return self._note.read_text().strip()
        except FileNotFoundError:
            return ""

    @property
    def _note(self) -> Path:
        return self.path / "made-with"

    def note(self, program: str) -> None:
        """Written before the cluster exists: a run may be cut off while it is made."""
        self._note.write_text(program + "\n")

    def remove(self) -> None:
        """The cluster is gone."""
        shutil.rmtree(self.path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep out a second run. Raises TryError where one is under way."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise TryError("another run for this cluster is under way: wait for its end") from error
            yield


@dataclass(frozen=True, slots=True)
class OwnCluster:
    """``program`` makes it; ``programs`` reach it by the state folder's kubeconfig.

    ``patience_s``: how long one that an earlier run made may take until it answers.
    """

    name: str
    program: ClusterProgram
    programs: Programs
    state: StateFolder
    patience_s: float = 120.0

    def ensure(self) -> None:
        """Make it, or go on with the one that an earlier run made. Raises TryError."""
        if not self.program.exists():
            self.state.note(self.program.name)
            self.program.create()
        else:
            self._take_over()
        words = ["kubectl", "label", "nodes", "--all", "--overwrite", MADE_BY, GPU_NODE]
        self.programs.answer(words, "the cluster's labels")

    def remove(self) -> bool:
        """Remove it, half made or whole; False where there is none. Raises TryError where it is somebody else's."""
        if not self.program.exists():
            return False
        self._refuse_foreign()
        self.program.delete()
        return True

    def _take_over(self) -> None:
        self._refuse_foreign()
        self.state.note(self.program.name)
        try:
            self.program.start()
            self.program.access()
            self._await_answer()
        except TryError as error:
            show(f"      {error}")
            show("      it was left half made, or does not start again: making it anew")
            self.program.delete()
            self.program.create()
        else:
            show(f"      {self.name} is here already: going on with it")

    def _await_answer(self) -> None:
        until_s = time.monotonic() + self.patience_s
        words = ["kubectl", "get", "--raw", "/readyz"]
        while not self.programs.succeeds(words, "the cluster"):
            if time.monotonic() > until_s:
                raise TryError(f"the cluster: its API server is not ready within {self.patience_s:.0f} s")
            show(f"      the cluster is not ready yet: {until_s - time.monotonic():.0f} s left")
            time.sleep(PAUSE_S)

    def _refuse_foreign(self) -> None:
        """Raises TryError unless the note, or a label on its nodes, shows that it is ours."""
        if self.state.made_with == self.program.name:
            return
        words = ["kubectl", "get", "nodes", "--selector", MADE_BY, "--output", "name"]
        try:
            self.program.access()
            if self.programs.answer(words, "the cluster's labels").strip():
                return
        except TryError as error:
            show(f"      {error}")
        raise TryError(
            f"a cluster {self.name} is here that this command did not make: "
            f"remove it yourself with {self.program.name}, or take another name (--name)"
        )
