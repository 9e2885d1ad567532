"""`wattscale agent` as a process: its pages, its exit codes, its preflight checks, its view of a process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

import agent
from tests.contract.bus import until
from tests.doubles.kubelet import FakeKubelet
from tests.doubles.kubernetes import KubernetesDouble
from tests.doubles.nvml.loaded import library_environment
from tests.doubles.nvml.state import FakeNvml
from tests.free_ports import free_port
from tests.integration.agent.server import NatsServer
from tests.integration.agent.test_list_watch import pod
from tests.integration.agent.wire import PlannerSide, connected

UID, CID = "0b7632a2-a56e-4278-987a-22de18008dbe", "9" * 64


def wattscale(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """One command to its end. Node names of the machine that runs the tests are kept out."""
    environment = {key: value for key, value in (env or os.environ).items() if key != "NODE_NAME"}
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli.main", "agent", *args],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )


@asynccontextmanager
async def agent_process(
    *args: str, env: dict[str, str] | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "deploy.cli.main", "agent", "power", "--host", "127.0.0.1", "--port", str(port), *args),
        env=env,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def page(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def first_page(url: str) -> tuple[int, str]:
    """The first answer, as soon as somebody listens."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await page(url)
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)


async def ready(url: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                if (await page(f"{url}/readyz"))[0] == 200:
                    return
            except aiohttp.ClientError:
                pass  # Not listening yet.
            await asyncio.sleep(0.05)


def kubeconfig(folder: Path, url: str) -> Path:
    file = folder / "kubeconfig"
    file.write_text(
        "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u, namespace: ns}}]\n"
        f"clusters: [{{name: k, cluster: {{server: '{url}'}}}}]\nusers: [{{name: u, user: {{token: secret}}}}]\n"
    )
    return file


async def test_the_process_serves_its_pages_obeys_and_ends_with_0(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server, connected(server.url) as bus:
        planner = PlannerSide(bus, "n1")
        await planner.prepare()
        arguments = ("--node", "n1", "--driver", "simulated", "--gpus", "2", "--nats-url", server.url)
        async with agent_process(*arguments) as (process, url):
            await ready(url)
            await planner.decide({"GPU-n1-00": 400.0, "GPU-n1-01": 300.0})
            await planner.answered(lambda ack: ack.applied_decision_id == 0)
            assert (await page(f"{url}/livez"))[0] == 200
            text = (await page(f"{url}/metrics"))[1]
            assert 'wattscale_agent_bus_connected{node="n1"} 1.0' in text
            assert 'wattscale_agent_applied_decision_id{node="n1"} 0.0' in text
            limits = [line for line in text.splitlines() if "enforced_watts{" in line and 'UUID="GPU-n1-00"' in line]
            assert [line.rpartition(" ")[2] for line in limits] == ["400.0"]
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 60) == 0


def listening_ports(pid: int) -> set[int]:
    """TCP ports on which a process listens, by the kernel's tables."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # Closed since it was listed.
            inodes.add(str(link.readlink()))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


async def test_port_0_is_one_that_the_system_chooses_and_none_is_no_server(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        common = ("--driver", "simulated", "--gpus", "1", "--nats-url", server.url)
        async with agent_process("--node", "n1", *common, "--port", "0") as (chosen, _):
            assert chosen.stderr is not None
            async with asyncio.timeout(60):
                while b" on http://127.0.0.1:" not in (line := await chosen.stderr.readline()):
                    assert line, "the agent ended"
            url = line.decode().rpartition(" on ")[2].strip()
            await ready(url)
            assert int(url.rpartition(":")[2]) in listening_ports(chosen.pid)
        async with connected(server.url) as bus:
            planner = PlannerSide(bus, "n2")
            await planner.prepare()
            async with agent_process("--node", "n2", *common, "--port", "none") as (silent, _):
                await planner.telemetry_where(lambda telemetry: len(telemetry.gpus) == 1)
                assert listening_ports(silent.pid) == set()


async def test_the_agent_is_not_ready_while_the_driver_does_not_answer(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", 1)
    fake.fail("init", 9)
    url = f"nats://127.0.0.1:{free_port()}"
    async with NatsServer(tmp_path) as server:
        url = server.url
        async with agent_process("--node", "n1", "--nats-url", url, env=library_environment(fake)) as (_, base):
            assert await first_page(f"{base}/readyz") == (503, "not ready: the GPUs have not been read yet\n")
            fake.fail("init", 0)
            await ready(base)


async def test_a_second_agent_of_a_node_waits_and_is_not_ready_until_the_first_has_ended(tmp_path: Path) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text(f"node: n1\ndriver: simulated\nlock_file: {tmp_path / 'run' / 'agent.lock'}\n")
    async with NatsServer(tmp_path) as server:
        arguments = ("--settings", str(config), "--nats-url", server.url)
        async with agent_process(*arguments) as (first, url):
            await ready(url)
            async with agent_process(*arguments) as (_, other):
                assert (await first_page(f"{other}/readyz"))[0] == 503
                assert (await page(f"{other}/livez"))[0] == 200
                first.terminate()
                assert await asyncio.wait_for(first.wait(), 60) == 0
                await ready(other)


async def test_annotation_mode_needs_no_bus(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", 2)
    async with KubernetesDouble() as kube, FakeKubelet(tmp_path) as kubelet:
        kubelet.assigned = {("ns", "a"): {"nvidia.com/gpu": [fake.uuids[1]]}}
        await kube.put("", "pods", pod("a", annotations={"dynamo.nvidia.com/gpu-power-limit": "333"}))
        flags: tuple[str, ...] = (
            "--node",
            "n1",
            "--kubernetes",
            "on",
            "--kubeconfig",
            str(kubeconfig(tmp_path, kube.url)),
        )
        flags += ("--pod-resources", str(kubelet.socket), "--safe-default-watts", "500")
        async with agent_process(*flags, env=library_environment(fake)):
            await until(lambda: fake.enforced == [700_000, 333_000], "the annotation")
            kubelet.assigned = {}
            await kube.remove("", "pods", "ns", "a")
            kubelet.assigned = {("ns", "b"): {"nvidia.com/gpu": [fake.uuids[1]]}}
            await kube.put("", "pods", pod("b"))
            await until(lambda: fake.enforced == [700_000, 700_000], "the limit to be given back")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("power", "--driver", "simulated"), "node: must be set"),
        (("power", "--node", "n", "--driver", "simulated"), "no source of limits"),
        (("power", "--node", "n", "--settings", "/nowhere.yaml"), "/nowhere.yaml: cannot be read"),
        (("power", "--node", "n", "--kubernetes", "on"), "kubernetes: not in a pod"),
        (("power", "--node", "a_b", "--driver", "simulated", "--nats-url", "URL"), "node: "),
        (("pod-of", "--pid", "999999999"), "no process 999999999"),
        (("pod-of", "--cgroup-file", "/nowhere"), "cgroup file /nowhere"),
    ],
)
async def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, args: tuple[str, ...], line: str) -> None:
    async with NatsServer(tmp_path) as server:
        done = await asyncio.to_thread(wattscale, *(server.url if arg == "URL" else arg for arg in args))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert line in done.stderr


def test_pod_of_prints_the_pod_the_container_and_where_it_read_them(tmp_path: Path) -> None:
    file = tmp_path / "cgroup"
    file.write_text(f"0::/kubepods/pod{UID}/{CID}\n")
    done = wattscale("pod-of", "--cgroup-file", str(file))
    assert (done.returncode, done.stdout) == (0, f"pod_uid: {UID}\ncontainer_id: {CID}\nsource: {file}\n")
    found = json.loads(wattscale("pod-of", "--cgroup-file", str(file), "--json").stdout)
    assert (found["pod_uid"], found["container_id"], found["static_pod"]) == (UID, CID, False)


def test_pod_of_prints_why_there_is_no_pod(tmp_path: Path) -> None:
    file = tmp_path / "cgroup"
    file.write_text("0::/user.slice\n")
    done = wattscale("pod-of", "--cgroup-file", str(file), "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["pod_uid"] is None
    assert "no_pod" in done.stderr or "no_pod" in json.loads(done.stdout)["reason"]
    done = wattscale("pod-of", "--pid", str(os.getpid()))
    assert done.returncode in (0, 1)
    assert f"/proc/{os.getpid()}/cgroup" in done.stdout


async def test_the_doctor_finds_a_node_in_order(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", 2)
    fake.gpus[1].persistence = 0
    async with NatsServer(tmp_path) as server, connected(server.url) as bus, KubernetesDouble() as kube:
        await PlannerSide(bus, "n1").prepare()
        await kube.put("", "pods", pod("a"))
        async with FakeKubelet(tmp_path) as kubelet:
            flags: tuple[str, ...] = ("--node", "n1", "--nats-url", server.url, "--pod-resources", str(kubelet.socket))
            flags += ("--kubernetes", "on", "--kubeconfig", str(kubeconfig(tmp_path, kube.url)), "--json")
            done = await asyncio.to_thread(wattscale, "check", *flags, env=library_environment(fake))
    findings = {one["name"]: one for one in json.loads(done.stdout)}
    assert findings["driver"]["status"] == "ok"
    assert findings[f"gpu {fake.uuids[0]}"]["detail"].startswith("NVIDIA H200: 200 to 700 W")
    assert findings["persistence mode"]["status"] == "warn"
    assert "nvidia-persistenced" in findings["persistence mode"]["remedy"]
    assert findings["kubernetes pods"]["status"] == "ok"
    assert findings["pod-resources"]["status"] == "ok"
    assert findings["bus"]["status"] == "ok"
    assert findings["bus consumer"]["status"] == "ok"
    assert all(one["remedy"] for one in findings.values() if one["status"] in ("warn", "fail"))
    assert fake.calls("set_limit") == 0


async def test_the_doctor_names_what_is_missing_and_the_remedy(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", 2)
    fake.gpus[0].fail("uuid", 15)
    rights = {"other": lambda verb, resource: True}
    async with KubernetesDouble(rights=rights) as kube:
        flags: tuple[str, ...] = (
            "--node",
            "n1",
            "--nats-url",
            f"nats://127.0.0.1:{free_port()}",
            "--pod-resources",
            str(tmp_path / "none"),
        )
        flags += (
            "--kubernetes",
            "on",
            "--kubeconfig",
            str(kubeconfig(tmp_path, kube.url)),
            "--proc-root",
            str(tmp_path),
        )
        done = await asyncio.to_thread(wattscale, "check", *flags, env=library_environment(fake))
    assert done.returncode == 1
    for text in (
        "fail  gpu index-0: uuid: GPU is lost (NVML 15)",
        "warn  host processes",
        "hostPID: true",
        "warn  pod-resources: no socket",
        "fail  kubernetes pods: 401",
        "get, list, watch on pods",
        "fail  bus: ",
    ):
        assert text in done.stdout


def test_the_systemd_unit_is_valid_and_keeps_few_rights(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    unit = (Path(agent.__file__).parent / "wattscale-agent.service").read_text()
    copy = tmp_path / "wattscale-agent.service"
    copy.write_text(unit.replace("/opt/wattscale/bin/wattscale", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert "wattscale-agent" not in verified.stderr, verified.stderr
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=40", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-500:]
