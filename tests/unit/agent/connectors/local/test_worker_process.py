"""Worker processes: started apart, recognised again, and no other process ever signalled."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.connectors.local.worker_process import WorkerProcesses, WorkerStartError, environment_of, filled

SLEEPS = (sys.executable, "-c", "import time; time.sleep(600)")
CHILD = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"


def awaited(read: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not read():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def processes() -> Iterator[WorkerProcesses]:
    made = WorkerProcesses()
    yield made
    for child in made._children.values():
        child.kill()
        child.wait()


def start(processes: WorkerProcesses, folder: Path, *command: str, mark="m") -> tuple[int, int]:
    environment = environment_of({}, {}, (), mark)
    return processes.start(command or SLEEPS, environment, None, folder / "log")


def test_it_ends_the_process_that_it_started_and_knows_how_it_ended(processes, tmp_path):
    pid, ticks = start(processes, tmp_path)
    assert processes.ended(pid, ticks) == ""
    processes.terminate(pid, ticks)
    awaited(lambda: processes.ended(pid, ticks), "the process ends")
    assert processes.ended(pid, ticks) == "by signal 15"
    pid, ticks = start(processes, tmp_path, sys.executable, "-c", "raise SystemExit(3)")
    awaited(lambda: processes.ended(pid, ticks), "the process ends")
    assert processes.ended(pid, ticks) == "exit code 3"


def test_a_process_with_the_same_number_and_another_start_time_is_not_signalled(processes, tmp_path):
    pid, ticks = start(processes, tmp_path)
    other = WorkerProcesses()
    other.kill(pid, ticks + 1)
    other.terminate(pid, ticks + 1)
    other.kill(-1, 0)
    assert other.ended(pid, ticks + 1)
    assert processes.ended(pid, ticks) == ""
    assert other.ended(pid, ticks) == ""


def test_another_connector_finds_it_by_its_mark_and_not_its_children(processes, tmp_path):
    pid, ticks = start(processes, tmp_path, sys.executable, "-c", f"{CHILD}; time.sleep(600)", mark="this-one")
    awaited(lambda: WorkerProcesses().find("this-one"), "the process has its environment")
    assert WorkerProcesses().find("this-one") == (pid, ticks)
    assert WorkerProcesses().find("another") is None


def test_a_kill_ends_its_children_too(processes, tmp_path):
    pid, ticks = start(processes, tmp_path, sys.executable, "-c", f"{CHILD}; time.sleep(600)")

    def group() -> list[str]:
        return subprocess.run(
            ["ps", "-o", "stat=", "-g", str(pid)], capture_output=True, text=True, check=False
        ).stdout.split()

    awaited(lambda: len(group()) == 2, "the child runs")
    processes.kill(pid, ticks)
    awaited(lambda: all(state.startswith("Z") for state in group()), "both have ended")
    assert processes.ended(pid, ticks) == f"by signal {signal.SIGKILL.value}"


def test_a_command_that_does_not_exist_says_so(processes, tmp_path):
    with pytest.raises(WorkerStartError, match="/no/such/engine cannot be started"):
        start(processes, tmp_path, "/no/such/engine")
    assert processes.ended(-1, 0) == "it could not be started"


def test_a_workers_environment_has_its_gpus_and_none_of_our_secrets():
    own = {"PATH": "/bin", "WATTSCALE_NATS_PASSWORD": "secret", "CUDA_VISIBLE_DEVICES": "7"}
    made = environment_of(own, {"LEVEL": "info"}, ("0", "1"), "mark")
    assert made == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0,1", "LEVEL": "info", "WATTSCALE_WORKER": "mark"}


def test_placeholders_are_filled_and_other_braces_stay():
    text = '--port={port} --config={"kv": {"role": 1}} {worker}'
    assert filled(text, {"port": "9400", "worker": "w"}) == '--port=9400 --config={"kv": {"role": 1}} w'
