"""`deploy/kubernetes/try`: order, arguments, failures at every step, second runs, and what --down removes."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from deploy.kubernetes import try_run
from deploy.kubernetes.pinned import BASE, KIND_NODE, PROMETHEUS_CHART, PROMETHEUS_CHART_VERSION
from tests.contract.bus import until
from tests.integration.evaluation.recorded_programs import ROOT, RecordedPrograms, recorded_programs
from tests.running_processes import gone

WAIT_S = 60.0
SECRET = "hf_not-for-anyone"
QUESTIONS = re.compile(
    "docker (info|image)|helm version|kind (get|export)|kubectl (get|--namespace [^ ]+ get) |minikube (profile|update)"
)
GATED = """
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata: {name: gated}
spec: {services: {Worker: {envFromSecret: hf-token-secret}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: router}
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordedPrograms:
    made = recorded_programs(tmp_path, monkeypatch)
    monkeypatch.setattr(try_run, "ROOT", made.checkout)
    return made


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the call of this number fail; 0: none."""
    return lambda call: monkeypatch.setenv("FAIL_AT", str(call))


def _steps(calls: list[str]) -> list[str]:
    """What changes something, in order, as far as it says what."""
    return [call for call in calls if not QUESTIONS.match(call)]


def _index(calls: list[str], start: str) -> int:
    (at,) = [at for at, call in enumerate(calls) if call.startswith(start)]
    return at


def test_everything_comes_up_in_order_with_what_is_pinned(
    programs: RecordedPrograms, capfd: pytest.CaptureFixture[str]
) -> None:
    assert try_run.main([]) == 0
    calls = _steps(programs.calls())
    kubeconfig = f"--kubeconfig {programs.kubeconfig}"
    order = [
        f"kind create cluster --name wattscale-try --image {KIND_NODE} --wait 300s {kubeconfig}",
        "kubectl label nodes --all --overwrite wattscale.io/made-by=try nvidia.com/gpu.present=true",
        f"docker pull {BASE}",
        f"docker build --build-arg BASE=python@sha256:{7:064} --tag wattscale/planner:try",
        f"docker tag wattscale/planner:try wattscale/planner:try-{0:012}",
        f"kind load docker-image wattscale/planner:try-{0:012} --name wattscale-try",
        f"kind load docker-image wattscale/agent:try-{0:012} --name wattscale-try",
        f"helm upgrade --install prometheus {PROMETHEUS_CHART} --version {PROMETHEUS_CHART_VERSION} ",
        "kubectl --namespace monitoring wait --for=condition=Available prometheus/prometheus-kube-prometheus-",
        "kubectl --namespace wattscale-try rollout status deployment/chat --timeout=600s",
        f"helm upgrade --install wattscale {programs.checkout}/deploy/helm/wattscale --values ",
    ]
    places = [_index(calls, start) for start in order]
    assert places == sorted(places)
    assert places[-1] == len(calls) - 1
    for call in calls:
        if call.startswith("helm "):
            assert "--wait --timeout 900s" in call
            assert "--create-namespace" in call
    assert f"--set images.planner.tag=try-{0:012} --set images.agent.tag=try-{0:012}" in calls[-1]
    assert [one["kind"] for one in programs.applied()] == ["Namespace", "Deployment", "Service"]
    shown = capfd.readouterr().out
    assert [line for line in shown.splitlines() if line.startswith("[")] == [
        "[1/5] cluster wattscale-try with kind",
        "[2/5] images of this checkout",
        "[3/5] Prometheus and Grafana",
        "[4/5] the serving graph",
        "[5/5] bus, planner, agents and connectors",
    ]
    assert f"export KUBECONFIG={programs.kubeconfig}" in shown


def test_a_second_run_makes_and_builds_nothing_again(programs: RecordedPrograms) -> None:
    assert try_run.main([]) == 0
    first = _steps(programs.calls())
    programs.forget_calls()
    assert try_run.main([]) == 0
    again = _steps(programs.calls())
    assert [call for call in first if call not in again] == [
        call for call in first if call.startswith(("kind create", "docker pull", "docker build"))
    ]
    assert set(again) <= set(first)


def test_images_of_another_commit_and_of_changed_files_are_built_again(programs: RecordedPrograms) -> None:
    assert try_run.main([]) == 0
    for change in ("revision", "checkout/more"):
        programs.forget_calls()
        programs.keep(change, "other")
        assert try_run.main([]) == 0
        assert len([call for call in programs.calls() if call.startswith("docker build")]) == 2


@pytest.mark.long
def test_after_a_failure_at_any_call_the_next_run_ends_well(
    programs: RecordedPrograms, failing: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    assert try_run.main([]) == 0
    up = {call for call in _done(_steps(programs.calls())) if " apply " not in call}
    _start_anew(programs)
    assert try_run.main(["--clean-test"]) == 0
    whole = _steps(programs.calls())
    number = len(programs.calls())
    capfd.readouterr()
    for call in range(1, number + 1):
        _start_anew(programs)
        failing(call)
        code = try_run.main(["--clean-test"])
        error = capfd.readouterr().err
        failing(0)
        before = _steps(programs.calls())
        if code == 0:  # a question whose failure means "not there"
            assert _done(before) == _done(whole), call
            continue
        assert code == 1
        lines = [line for line in error.splitlines() if line.startswith("deploy/kubernetes/try: ")]
        assert len(lines) == 1, error
        assert len(programs.calls()) <= call + 1, "something was done after the failure"
        programs.forget_calls()
        assert try_run.main([]) == 0
        assert up <= _done([*before, *_steps(programs.calls())]), call
        capfd.readouterr()


def _start_anew(programs: RecordedPrograms) -> None:
    for file in programs.folder.iterdir():
        if file.is_file():
            file.unlink()
    for file in programs.state.iterdir():
        file.unlink()


def _done(calls: list[str]) -> set[str]:
    return {call for call in calls if not call.startswith(("docker pull", "docker build", "kind delete"))}


def test_the_clean_test_begins_from_nothing_sends_requests_and_verifies(
    programs: RecordedPrograms, capfd: pytest.CaptureFixture[str]
) -> None:
    assert try_run.main([]) == 0
    programs.forget_calls()
    assert try_run.main(["--clean-test"]) == 0
    calls = _steps(programs.calls())
    inside = "kubectl --namespace wattscale-try "
    planner = f"{inside}exec deployment/wattscale-planner -- wattscale "
    order = [
        "kind delete cluster --name wattscale-try",
        "kind create cluster",
        "helm upgrade --install wattscale",
        f"{inside}exec deployment/chat -- wattscale load --url http://chat:8000 --model demo",
        f"{planner}deployment pin chat aggregated=2",
        f"{inside}wait --for=jsonpath={{.status.readyReplicas}}=2 deployment/chat --timeout=180s",
        f"{planner}budget set 1200 --site try --wait",
        f"{inside}exec agent-1 -- wattscale agent check",
        f"{inside}exec deployment/wattscale-connector-chat -- wattscale verify",
        f"{inside}delete job wattscale-verify --ignore-not-found",
        f"{inside}logs job/wattscale-verify",
        f"{planner}deployment release chat",
        f"{planner}budget release --site try",
    ]
    places = [_index(calls, start) for start in order]
    assert places == sorted(places)
    assert "Job" in [one["kind"] for one in programs.applied()]
    assert "the verifier's lines" in capfd.readouterr().out


def test_a_failed_verification_is_the_exit_code_and_its_lines_are_shown(
    programs: RecordedPrograms, capfd: pytest.CaptureFixture[str]
) -> None:
    programs.keep("job", "FailureTarget Failed\n")
    assert try_run.main(["--clean-test"]) == 1
    shown = capfd.readouterr()
    assert "the verifier's lines" in shown.out
    assert shown.err == (
        "deploy/kubernetes/try: `wattscale verify` failed: see the lines marked fail above, each with its remedy\n"
    )


@pytest.mark.parametrize("missing", ["docker", "kubectl", "helm", "kind"])
def test_each_missing_program_is_one_line_and_nothing_is_started(
    programs: RecordedPrograms, capfd: pytest.CaptureFixture[str], missing: str
) -> None:
    programs.without(*({"kind", "minikube"} if missing == "kind" else {missing}))
    assert try_run.main([]) == 1
    shown = capfd.readouterr()
    (line,) = [line for line in shown.out.splitlines() if line.startswith("missing")]
    assert line.startswith(f"missing  {'kind or minikube' if missing == 'kind' else missing}: ")
    assert "install" in line
    assert shown.err == "deploy/kubernetes/try: something is missing, see above; nothing was started\n"
    assert _steps(programs.calls()) == []


def test_an_old_helm_and_a_silent_engine_are_named_together(
    programs: RecordedPrograms,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    failing: Callable[[int], None],
) -> None:
    monkeypatch.setenv("HELM_VERSION", "v3.9.4")
    failing(1)
    assert try_run.main([]) == 1
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("missing")]
    assert lines[0].startswith("missing  docker: the engine does not answer; start it")
    assert lines[1] == "missing  helm: v3.9.4 is too old; install 3.17 or newer"


def test_minikube_is_taken_where_it_is_what_there_is(programs: RecordedPrograms) -> None:
    programs.without("kind")
    assert try_run.main(["--clean-test"]) == 0
    calls = _steps(programs.calls())
    assert calls[0].startswith("minikube start --profile wattscale-try --driver docker --kubernetes-version v1.34.0 ")
    assert f"minikube image load wattscale/agent:try-{0:012} --profile wattscale-try" in calls
    assert not any(call.startswith("kind ") for call in calls)
    programs.forget_calls()
    assert try_run.main(["--down"]) == 0
    assert _steps(programs.calls()) == ["minikube delete --profile wattscale-try"]


def test_the_program_that_made_the_cluster_goes_on_with_it(
    programs: RecordedPrograms, capfd: pytest.CaptureFixture[str]
) -> None:
    assert try_run.main(["--with", "minikube"]) == 0
    programs.forget_calls()
    assert try_run.main([]) == 0
    assert not any(call.startswith("kind ") for call in programs.calls())
    capfd.readouterr()
    assert try_run.main(["--with", "kind"]) == 1
    assert "made with minikube" in capfd.readouterr().err


def test_down_removes_the_cluster_and_leaves_nothing(
    programs: RecordedPrograms, capfd: pytest.CaptureFixture[str]
) -> None:
    assert try_run.main([]) == 0
    programs.forget_calls()
    assert try_run.main(["--down"]) == 0
    assert _steps(programs.calls()) == [f"kind delete cluster --name wattscale-try --kubeconfig {programs.kubeconfig}"]
    assert not programs.state.exists()
    capfd.readouterr()
    assert try_run.main(["--down"]) == 0
    assert capfd.readouterr().out == "nothing to remove: kind has no wattscale-try\n"


def test_a_half_made_cluster_is_removed_by_down_and_made_anew_by_the_next_run(programs: RecordedPrograms) -> None:
    # Cut off while it was made: the note is there, and so are its containers, without an API server.
    for arguments, expected in ((["--down"], ["kind delete"]), ([], ["kind delete", "kind create"])):
        programs.state.mkdir(parents=True)
        (programs.state / "made-with").write_text("kind\n")
        programs.keep("clusters.kind", "wattscale-try\n")
        programs.keep("broken")
        programs.forget_calls()
        assert try_run.main(arguments) == 0
        found = [call for call in _steps(programs.calls()) if call.startswith("kind ") and " load " not in call]
        assert [" ".join(call.split()[:2]) for call in found] == expected
        assert not programs.has("broken")


@pytest.mark.parametrize("program", ["kind", "minikube"])
@pytest.mark.parametrize("arguments", [["--down"], [], ["--clean-test"]])
def test_a_cluster_of_somebody_else_is_neither_used_nor_removed(
    programs: RecordedPrograms, capfd: pytest.CaptureFixture[str], arguments: list[str], program: str
) -> None:
    programs.keep(f"clusters.{program}", "wattscale-try\n")
    assert try_run.main([*arguments, "--with", program]) == 1
    assert "a cluster wattscale-try is here that this command did not make" in capfd.readouterr().err
    assert programs.has(f"clusters.{program}")
    assert _steps(programs.calls()) == []


def test_without_its_note_the_label_on_its_nodes_shows_whose_it_is(programs: RecordedPrograms) -> None:
    assert try_run.main([]) == 0
    (programs.state / "made-with").unlink()
    assert try_run.main(["--down"]) == 0
    assert not programs.has("clusters.kind")


def test_the_token_reaches_the_cluster_and_no_argument(
    programs: RecordedPrograms, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    graph, values = tmp_path / "graph.yaml", tmp_path / "values.yaml"
    graph.write_text(GATED)
    values.write_text("{}")
    given = ["--graph", str(graph), "--values", str(values)]
    assert try_run.main(given) == 1
    assert "missing  HF_TOKEN: the graph's model needs it: export HF_TOKEN\n" in capfd.readouterr().out
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert try_run.main([*given, "--clean-test"]) == 0  # a stand-in that finds the token in its environment fails
    shown = capfd.readouterr()
    assert SECRET not in shown.out + shown.err + "\n".join(programs.calls())
    (secret,) = [one for one in programs.applied() if one["kind"] == "Secret"]
    assert secret["stringData"] == {"HF_TOKEN": SECRET}
    for file in programs.state.iterdir():
        assert SECRET not in file.read_text()
    calls = programs.calls()
    assert any("wait --for=condition=Ready dynamographdeployment/gated --timeout=600s" in call for call in calls)
    assert any("rollout status deployment/router" in call for call in calls)
    assert calls.index(next(call for call in calls if f"--values {values}" in call))
    assert "A graph of your own gets no requests and no commands" in shown.out


def test_without_a_gated_model_no_token_is_asked_for_or_sent(
    programs: RecordedPrograms, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert try_run.main([]) == 0
    assert "HF_TOKEN" not in capfd.readouterr().out
    assert not [one for one in programs.applied() if one["kind"] == "Secret"]


def test_two_runs_at_once_are_refused(programs: RecordedPrograms, capfd: pytest.CaptureFixture[str]) -> None:
    programs.state.mkdir(parents=True)
    with (programs.state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert try_run.main([]) == 1
    assert "another run for this cluster is under way" in capfd.readouterr().err
    assert programs.calls() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--down", "--clean-test"], "not allowed with"),
        (["--down", "--graph", "x", "--values", "y"], "--down takes --name and --with alone"),
        (["--graph", "x"], "--graph and --values go together"),
        (["--graph", "nowhere.yaml", "--values", "pyproject.toml"], "--graph nowhere.yaml: "),
        (["--graph", "pyproject.toml", "--values", "nowhere.yaml"], "--values nowhere.yaml: no such file"),
        (["--graph", "LICENSE", "--values", "pyproject.toml"], "--graph LICENSE: "),
        (["--name", "A b"], "--name A b: use small letters, digits and dashes"),
        (["--base", "python:3.12"], "--base python:3.12: name the image by its digest"),
        (["--with", "k3s"], "invalid choice"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str], words: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        try_run.main(arguments)
    assert ended.value.code == 2
    assert words in capfd.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Deployment\nmetadata:\n", "not a file of Kubernetes objects"),
        ("kind: Deployment\nmetadata: {name: x, creationTimestamp: 2026-01-01}\n", "not JSON serializable"),
        ("kind: Deployment\nmetadata: {name: x, creationTimestamp: 2026-13-45}\n", "month must be in 1..12"),
        ("kind: Deployment\nmetadata: &a {name: *a}\n", "Circular reference"),
    ],
)
def test_a_graph_that_cannot_be_applied_is_one_line(
    text: str, words: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    graph = tmp_path / "graph.yaml"
    graph.write_text(text)
    with pytest.raises(SystemExit) as ended:
        try_run.main(["--graph", str(graph), "--values", str(graph)])
    assert ended.value.code == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert f"--graph {graph}: " in line
    assert words in line


def test_the_real_build_takes_the_base_and_the_tag(programs: RecordedPrograms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(try_run, "ROOT", ROOT)
    base = f"python@sha256:{1:064}"
    assert try_run.main(["--base", base]) == 0
    builds = [call for call in programs.calls() if call.startswith("docker build")]
    assert len(builds) == 2
    assert all(f"--build-arg BASE={base}" in call for call in builds)
    assert "--tag wattscale/planner:try " in builds[0]


def test_the_command_itself_starts(programs: RecordedPrograms, tmp_path: Path) -> None:
    """In an environment that deploy/make-venv takes for one that it has made."""
    files = ("deploy/requirements.lock", "pyproject.toml", "bus_schemas/pyproject.toml")
    wanted = hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in files)).hexdigest()
    made = tmp_path / "environment"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python").symlink_to(sys.executable)
    (made / ".wattscale-requirements.lock.stamp").write_text(f"{wanted} {ROOT}")
    path = f"{programs.folder / 'bin'}:{os.environ['PATH']}:/usr/bin:/bin"
    done = subprocess.run(
        [str(ROOT / "deploy/kubernetes/try"), "--down"],
        env={**os.environ, "PATH": path, "WATTSCALE_VENV": str(made), "PYTHONPATH": ":".join((str(ROOT), *sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("nothing to remove: kind has no wattscale-try\n", "", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_signal_ends_what_runs_and_says_what_is_left(
    programs: RecordedPrograms, number: signal.Signals
) -> None:
    """`kind create` and what it started end with the command that started them."""
    kind = programs.folder / "bin" / "kind"
    long = 'sleep 600 & echo "$$ $!" >pids.new; mv pids.new pids; wait'
    kind.write_text(kind.read_text().replace('"kind create cluster"*) ', f'"kind create cluster"*) {long}; '))
    path = f"{os.environ['PATH']}:/usr/bin:/bin"
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.kubernetes.try_run"),
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await until(lambda: programs.has("pids"), "kind creates", WAIT_S)
        started.send_signal(number)
        _, told = await asyncio.wait_for(started.communicate(), WAIT_S)
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()
    assert started.returncode == 128 + number
    (line,) = told.decode().splitlines()
    assert line.startswith("deploy/kubernetes/try: stopped; kind cluster wattscale-try is there, maybe half made: ")
    assert line.endswith("deploy/kubernetes/try --down removes it")
    for pid in map(int, (programs.folder / "pids").read_text().split()):
        await until(partial(gone, pid), "what it started has ended", WAIT_S)


def test_stopped_before_a_cluster_was_made_it_says_so(
    programs: RecordedPrograms, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = programs.folder / "bin" / "kind"
    kind.write_text(kind.read_text().replace('"kind get clusters") ', '"kind get clusters") kill -TERM $PPID; '))
    before = signal.getsignal(signal.SIGTERM)
    assert try_run.main([]) == 128 + signal.SIGTERM
    assert "stopped; no cluster was made; the same command" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
