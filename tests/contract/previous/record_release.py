"""Makes `release/`: what a commit published, sent, was set by, and packaged. Run by hand, once for each release.

python -m tests.contract.previous.record_release CONTRACT_COMMIT CHART_COMMIT HELM

Needs the history of this repository. Messages are those of the commit's own `wattscale up`, with operators' commands.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nats
from nats.aio.msg import Msg

from bus_schemas.v1 import MESSAGES, DeadLetter
from tests.contract.bus import until
from tests.contract.previous.previous_code import OLD_MAIN, checked_out
from tests.free_ports import free_port

RELEASE = Path(__file__).parent / "release"
BY_HAND = ("README.md", "upgrade-values.yaml")
UP_S = 80
PLAIN_SETTINGS = """
import sys, yaml
from pathlib import Path
from planner.runtime.settings_sources import load
print(yaml.safe_dump(load(Path(sys.argv[1]), {}, []).settings.model_dump(mode="json"), sort_keys=False))
"""
"""Every setting of the planner, those with defaults too."""
AGENT_SETTINGS = """
import sys, yaml
from agent.runtime.agent_file import load
flags = {"node": "node-0", "driver": "simulated", "nats.servers": ["nats://127.0.0.1:4222"]}
print(yaml.safe_dump(load(None, {}, flags).model_dump(mode="json"), sort_keys=False))
"""
PLANNER = """
interval_s: 2
bus: {servers: ["nats://127.0.0.1:4222"]}
sites:
  row:
    budget_watts: 2900
    expected_gpus: 4
    schedule: {zone: UTC, windows: [{start: "20:00", end: "23:00", budget_watts: 2000, weekdays: [mon]}]}
deployments:
  chat:
    site: row
    model: llama-8b
    profile: profile
    wait_for_scaling: false
    metrics: {urls: ["http://127.0.0.1:8000/metrics"]}
    pools:
      prefill:
        behavior: {scaleDown: {stabilizationWindowSeconds: 60, policies: [{type: Pods, value: 1, periodSeconds: 60}]}}
      decode:
        power_curve: {p_s_watts: 100, p_u_watts: 600, alpha: 0.6, idle_watts: 80, min_watts: 200, max_watts: 700,
          useful_watts: 650}
        schedule: {windows: [{start: "08:00", end: "18:00", min_replicas: 2}]}
"""
COMMANDS = (
    "budget set 4000 --site local --ramp-s 2 --reason drill",
    "deployment pin default-demo prefill=1 decode=2",
    "deployment release default-demo",
    "deployment pause default-demo",
    "deployment resume default-demo",
    "node remove node-9 --reason sold",
    "budget release --site local",
)


async def recorded(code: Path) -> list[dict[str, object]]:
    """Subjects, headers and bodies of a short `up` of that code, oldest first."""
    port, seen = free_port(), []
    environment = {**os.environ, "PYTHONPATH": str(code)}
    up = await asyncio.create_subprocess_exec(
        *(sys.executable, *OLD_MAIN, "up", "--nats-port", str(port), "--duration", str(UP_S), "--speed", "10"),
        *("--planners", "2", "--json"),
        cwd=code,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
    )

    async def keep(message: Msg) -> None:
        headers = {name: text for name, text in (message.headers or {}).items() if name.startswith(("ce-", "Content"))}
        seen.append({"subject": message.subject, "headers": headers, "body": json.loads(message.data)})

    url = f"nats://127.0.0.1:{port}"
    nc = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    await nc.subscribe("wattscale.v1.>", cb=keep)
    await until(lambda: any("ack.power" in str(one["subject"]) for one in seen), "an acknowledgement")
    for words in COMMANDS:
        command = (sys.executable, *OLD_MAIN, *words.split(), "--nats-url", url)
        done = await asyncio.create_subprocess_exec(*command, cwd=code, env=environment)
        assert await done.wait() == 0, words
    await up.wait()
    await nc.close()
    return seen


def chosen(seen: list[dict[str, object]]) -> list[dict[str, object]]:
    """The first, the middle and the last of each type and action, in the order in which they were sent."""
    rows: dict[str, list[int]] = {}
    for at, one in enumerate(seen):
        body = one["body"]
        assert isinstance(body, dict)
        key = f"{body['type']} {body.get('action', '')} {body.get('release', '')}"
        rows.setdefault(key, []).append(at)
    kept = {at for found in rows.values() for at in (found[0], found[len(found) // 2], found[-1])}
    sent = {str(key).split()[0] for key in rows}
    missing = {str(cls.model_fields["type"].default) for cls in MESSAGES if cls is not DeadLetter} - sent
    assert not missing, f"not recorded: {missing}"
    return [seen[at] for at in sorted(kept)]


def main() -> None:
    """Write the folder anew."""
    contract, chart, helm = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        code, old_chart = (checked_out(commit, Path(scratch) / commit) for commit in (contract, chart))
        environment = {**os.environ, "PYTHONPATH": str(code)}

        def printed(program: str, *arguments: str) -> str:
            command = [sys.executable, "-c", program, *arguments]
            done = subprocess.run(command, cwd=code, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            return done.stdout

        for made in RELEASE.iterdir():
            if made.name not in BY_HAND:
                shutil.rmtree(made) if made.is_dir() else made.unlink()
        shutil.copy(code / "bus_schemas/export/asyncapi.json", RELEASE)
        (Path(scratch) / "planner.yaml").write_text(PLANNER)
        (RELEASE / "planner.yaml").write_text(printed(PLAIN_SETTINGS, str(Path(scratch) / "planner.yaml")))
        (RELEASE / "agent.yaml").write_text(printed(AGENT_SETTINGS))
        lines = [json.dumps(one, separators=(",", ":")) for one in chosen(asyncio.run(recorded(code)))]
        (RELEASE / "messages.jsonl").write_text("\n".join(lines) + "\n")
        (RELEASE / "values").mkdir()
        for values in (old_chart / "deploy/helm/wattscale/ci").iterdir():
            shutil.copy(values, RELEASE / "values")
        package = [helm, "package", str(old_chart / "deploy/helm/wattscale"), "--destination", str(RELEASE)]
        subprocess.run(package, check=True)
        (RELEASE / "COMMITS").write_text(f"contract {contract}\nchart {chart}\n")


if __name__ == "__main__":
    main()
