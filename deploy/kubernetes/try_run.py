"""Brings up a cluster for evaluation, verifies it, or removes it.

deploy/kubernetes/try [--with kind|minikube] [--graph FILE --values FILE]
deploy/kubernetes/try --clean-test
deploy/kubernetes/try --down
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from deploy.kubernetes.cluster_programs import ClusterProgram, Kind, Minikube
from deploy.kubernetes.evaluation import Evaluation, Graph
from deploy.kubernetes.in_cluster import BUS, NAMESPACE, TOKEN, Manifest, needs_token
from deploy.kubernetes.local_images import LocalImages
from deploy.kubernetes.own_cluster import OwnCluster, StateFolder
from deploy.kubernetes.prerequisites import CLUSTER_PROGRAMS, found_program, prerequisites
from deploy.kubernetes.watched_command import Programs, TryError, show

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "deploy/kubernetes/try"
DEFAULT_NAME = "wattscale-try"
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}[a-z0-9]")
BY_DIGEST = re.compile(r"(^|.+@)sha256:[0-9a-f]{64}")
SIGNALLED = 128
"""And the signal's number: the exit code of what a signal ended, as a shell has it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 not, with one line that says why; 2 wrong arguments; 130 or 143 stopped by a signal."""
    parser = _parser()
    options = parser.parse_args(arguments)
    manifests = _refuse_wrong(parser, options)
    state = StateFolder(_state_home(os.environ) / "wattscale" / "try" / options.name)
    try:
        with state.locked(), _stopped_by_signals():
            return _removed(options, state) if options.down else _brought_up(options, state, manifests)
    except (TryError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
    except _StopSignal as stop:
        print(f"{PROGRAM}: stopped; {_left(options, state)}", file=sys.stderr)
        return SIGNALLED + stop.number
    return 1


class _StopSignal(BaseException):
    """A signal that asks this command to end: whatever waits for a program ends it first."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise `_StopSignal`, once: while programs are ended they are ignored."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise _StopSignal(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _left(options: argparse.Namespace, state: StateFolder) -> str:
    """What a run that was stopped leaves, and what removes it."""
    same = "the same command goes on from here"
    if not state.made_with:
        return f"no cluster was made; {same}"
    name = "" if options.name == DEFAULT_NAME else f" --name {options.name}"
    return (
        f"{state.made_with} cluster {options.name} is there, maybe half made: {same}, {PROGRAM}{name} --down removes it"
    )


def _brought_up(options: argparse.Namespace, state: StateFolder, manifests: tuple[Manifest, ...] | None) -> int:
    programs = _programs(state)
    wanted = options.program or state.made_with
    name = found_program(programs.environment.get("PATH", ""), wanted)
    needed = manifests is not None and needs_token(manifests)
    token = os.environ.get(TOKEN, "") if needed else None
    found = list(prerequisites(programs, name, token=token))
    for line in found:
        show(str(line))
    if any(line.missing for line in found):
        raise TryError("something is missing, see above; nothing was started")
    _refuse_other_program(state, name)
    cluster = OwnCluster(options.name, _cluster_program(name, options.name, programs, state), programs, state)
    if options.clean_test and cluster.remove():
        show(f"The cluster of an earlier run is gone: {options.name}")
    graph = Graph(token=token or "") if manifests is None else Graph(manifests, options.values, token or "")
    images = LocalImages(programs, ROOT, options.base or "")
    evaluation = Evaluation(ROOT, cluster, images, programs, graph)
    evaluation.bring_up()
    if options.clean_test:
        evaluation.verify()
    _show_ways_in(state, options)
    return 0


def _removed(options: argparse.Namespace, state: StateFolder) -> int:
    programs = _programs(state)
    wanted = options.program or state.made_with
    name = found_program(programs.environment.get("PATH", ""), wanted)
    if not name:
        raise TryError("neither kind nor minikube is on PATH: no cluster can be found")
    _refuse_other_program(state, name)
    cluster = OwnCluster(options.name, _cluster_program(name, options.name, programs, state), programs, state)
    show(f"removed: {options.name}" if cluster.remove() else f"nothing to remove: {name} has no {options.name}")
    state.remove()
    return 0


def _refuse_other_program(state: StateFolder, name: str) -> None:
    """A note of the other program may stand for a cluster, which would be forgotten."""
    if state.made_with not in ("", name):
        raise TryError(f"this cluster was made with {state.made_with}: leave out --with, or remove it first (--down)")


def _cluster_program(name: str, cluster: str, programs: Programs, state: StateFolder) -> ClusterProgram:
    return Kind(programs, cluster, state.kubeconfig) if name == "kind" else Minikube(programs, cluster)


def _programs(state: StateFolder) -> Programs:
    """Other programs see this cluster alone, and no token."""
    variables = {name: value for name, value in os.environ.items() if name != TOKEN}
    return Programs({**variables, "KUBECONFIG": str(state.kubeconfig)})


def _state_home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")


def _show_ways_in(state: StateFolder, options: argparse.Namespace) -> None:
    name = "" if options.name == DEFAULT_NAME else f" --name {options.name}"
    show(
        f"""Done. The way to it:
  export KUBECONFIG={state.kubeconfig}
  kubectl --namespace {NAMESPACE} exec deployment/wattscale-planner -- wattscale status --nats-url {BUS}
  kubectl --namespace monitoring port-forward service/prometheus-grafana 3000:80
Remove it: {PROGRAM} --down{name}"""
    )


def _refuse_wrong(parser: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[Manifest, ...] | None:
    """The manifests of a graph of the user's own, None without one. Ends with exit code 2 and one line."""
    if not NAME.fullmatch(options.name):
        parser.error(f"--name {options.name}: use small letters, digits and dashes")
    if options.base is not None and not BY_DIGEST.fullmatch(options.base):
        parser.error(f"--base {options.base}: name the image by its digest, as in NAME@sha256:...")
    if options.down and (options.graph or options.values or options.base):
        parser.error("--down takes --name and --with alone")
    if (options.graph is None) != (options.values is None):
        parser.error("--graph and --values go together: the values have the planner's settings of that graph")
    if options.graph is None:
        return None
    if not options.values.is_file():
        parser.error(f"--values {options.values}: no such file")
    try:
        documents: list[Any] = [one for one in yaml.safe_load_all(options.graph.read_text()) if one is not None]
        json.dumps(documents)  # kubectl is given JSON
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        parser.error(f"--graph {options.graph}: {str(error).splitlines()[0]}")
    if not documents or not all(map(_is_object, documents)):
        parser.error(f"--graph {options.graph}: not a file of Kubernetes objects")
    return tuple(documents)


def _is_object(document: Any) -> bool:
    """Whether it has a kind, and a mapping as metadata where it has any."""
    return isinstance(document, dict) and "kind" in document and isinstance(document.get("metadata", {}), dict)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--clean-test", action="store_true", help="from nothing: remove, bring up, send requests, verify")
    what.add_argument("--down", action="store_true", help="remove the cluster that this command made")
    parser.add_argument("--with", dest="program", choices=CLUSTER_PROGRAMS, help="default: the first that is found")
    parser.add_argument("--name", default=DEFAULT_NAME, help=f"of the cluster (default: {DEFAULT_NAME})")
    parser.add_argument("--base", metavar="IMAGE", help="base of our images by digest (default: the pinned Python)")
    parser.add_argument(
        "--graph", type=Path, metavar="FILE", help="manifests of a graph of your own, in place of the small engine"
    )
    parser.add_argument("--values", type=Path, metavar="FILE", help="the chart's values for that graph")
    return parser


if __name__ == "__main__":
    sys.exit(main())
