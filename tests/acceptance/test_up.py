"""The main job, run as people run it: one command, a summary, a bus that outsiders can read, a budget that holds."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.acceptance.up_process import UpProcess, outsider, run_cli, up
from tests.contract.bus import until

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("up")]

BUDGET_WATTS = 16_000
RUN = ("--nodes", "4", "--speed", "60", "--budget-watts", str(BUDGET_WATTS))


def caps_in_force(nodes: dict[str, float]) -> float:
    """The sum over nodes of the caps that their newest acknowledgement says are in force."""
    return sum(nodes.values())


async def two_of_each(run: UpProcess) -> None:
    """A scaling decision for certain: the run begins with one decode replica, and its load may need no other count."""
    async with asyncio.timeout(60):
        while (await run.cli("deployment", "pin", "default-demo", "prefill=2", "decode=2"))[0] != 0:
            await asyncio.sleep(0.2)


async def test_a_run_ends_with_a_summary_whose_every_decision_was_carried_out(tmp_path: Path) -> None:
    async with up(tmp_path, *RUN, "--duration", "25") as run:
        await run.listening()
        await two_of_each(run)
        async with outsider(run.url) as outside:
            decisions = await outside.until("decision.scaling")
            acks = await outside.until("ack.scaling")
            assert decisions[0]["type"] == "wattscale.v1.scaling_decision"
            assert acks[0]["deployment"] == decisions[0]["deployment"]
            power = await outside.until("ack.power", count=2)
            assert {ack["status"] for ack in power} <= {"applied", "partial", "accepted"}
        summary = await run.summary()
    assert summary["decisions"] > 0
    assert summary["acks"] > 0
    assert summary["requests"] > 0
    assert 0 < summary["good_requests"] <= summary["requests"]
    assert summary["gpu_hours"] > 0
    assert summary["energy_joules"] > 0
    assert summary["joules_per_output_token"] > 0
    assert summary["budget_watts"] == BUDGET_WATTS
    assert 0 < summary["max_sum_of_caps_watts"] <= BUDGET_WATTS
    assert summary["scaling"]
    for ids in summary["scaling"].values():
        assert ids["scaled_decision_id"] == ids["decision_id"] >= 0


async def test_the_power_guides_configuration_scales_within_its_thousand_watts(tmp_path: Path) -> None:
    """Four GPUs, 1000 W in total, 250 W each, cut in proportion: more than two of them serve, at 250 W."""
    cluster = ("--nodes", "1", "--gpus-per-node", "4", "--gpu", "h100", "--speed", "60", "--startup-s", "10")
    watts = ("--total-gpu-power-limit", "1000", "--caps", "fixed", "--shortage", "proportional")
    limits = ("--prefill-engine-gpu-power-limit", "250", "--decode-engine-gpu-power-limit", "250")
    async with up(tmp_path, *cluster, *watts, *limits, "--duration", "20") as run:
        await run.listening()
        async with outsider(run.url) as outside:
            scaling = await outside.until("decision.scaling", count=2)
            powers = await outside.until("decision.power", count=3)
        summary = await run.summary()
    assert max(each["num_prefill_workers"] + each["num_decode_workers"] for each in scaling) > 2
    # The first decision may cut to equal shares before any cap is chosen: three workers then have a third each.
    assert all(cap["cap_watts"] < 1000 / 3 + 0.001 for decision in powers for cap in decision["caps"]), powers
    caps = {cap["cap_watts"] for cap in powers[-1]["caps"]}
    # Where all four draw their caps the meter may show a little more than 1000 W: the brake then withholds that little.
    assert all(cap == 200.0 or 249.0 <= cap <= 250.0 for cap in caps), powers
    assert 0 < summary["max_sum_of_caps_watts"] <= 1000
    assert summary["requests"] > 0


async def test_verify_is_green_against_the_one_machine_product(tmp_path: Path) -> None:
    async with up(tmp_path, *RUN, "--duration", "300") as run:
        await run.listening()
        await two_of_each(run)
        async with outsider(run.url) as outside:
            await outside.until("ack.scaling")
        report = tmp_path / "verify.xml"
        code, out, err = await run.cli("verify", "--wait", "60", "--json", "--junit", str(report))
        found = {one["check"]: one for one in json.loads(out)["checks"]}
        assert code == 0, (err, found)
        # What no settings are given for is skipped, and says so; nothing else is.
        skipped = {name for name, one in found.items() if one["verdict"] == "skipped"}
        assert all("settings" in found[name]["detail"] or "Kubernetes" in found[name]["detail"] for name in skipped), (
            found
        )
        for group in ("infrastructure", "automation", "function", "hardware"):
            assert any(one["group"] == group and one["verdict"] == "pass" for one in found.values())
        assert {"leader", "agents", "connector", "caps in force", "budget", "draw"} <= set(found) - skipped
        assert "<failure" not in report.read_text()
        code, out, _ = await run.cli("verify", "--wait", "60")
        assert code == 0
        assert "pass    caps in force" in out


async def test_a_smaller_budget_is_in_force_within_seconds(tmp_path: Path) -> None:
    async with up(tmp_path, *RUN, "--duration", "300") as run:
        await run.listening()
        async with outsider(run.url) as outside:
            await outside.until("ack.power", count=4)
            code, out, err = await run.cli("budget", "set", "11000")
            assert code == 0, err
            assert "11000 W" in out
            nodes: dict[str, float] = {}

            def in_force(gpu: dict[str, float | None]) -> float:
                # A limit that could not be read back may be anything: it is not in force yet.
                watts = gpu["enforced_watts"]
                return math.inf if watts is None else watts

            async with asyncio.timeout(60):
                while len(nodes) < 4 or caps_in_force(nodes) > 11_000:
                    await asyncio.sleep(0.05)
                    for ack in outside.of("ack.power"):
                        nodes[ack["node"]] = sum(in_force(gpu) for gpu in ack["gpus"])
            code, out, err = await run.cli("budget", "show")
            assert code == 0, err
            assert "11000 W from" in out
            assert "in force" in out
            code, _, err = await run.cli("budget", "release")
            assert code == 0, err
            async with asyncio.timeout(60):
                while json.loads((await run.cli("status", "--json"))[1])["budget_watts"] != BUDGET_WATTS:
                    await asyncio.sleep(0.2)
        run.process.send_signal(signal.SIGTERM)
        summary = await run.summary()
    assert summary["max_sum_of_caps_watts"] <= BUDGET_WATTS


async def test_commands_that_inspect_need_no_address(tmp_path: Path) -> None:
    async with up(tmp_path, *RUN, "--duration", "300") as run:
        await run.listening()
        async with outsider(run.url) as outside:
            await outside.until("ack.power", count=4)
            await outside.until("telemetry.plan", count=2)
        code, out, err = await run.cli("status")
        assert code == 0, err
        assert "budget" in out
        assert "decode" in out
        code, out, err = await run.cli("decisions", "--last", "5")
        assert code == 0, err
        assert len(out.splitlines()) == 5
        code, out, err = await run.cli("explain", "default-demo")
        assert code == 0, err
        for word in ("observed", "forecast", "wanted", "granted"):
            assert word in out
        code, _, err = await run.cli("explain", "no-such-deployment")
        assert code == 1
        assert len(err.splitlines()) == 1


async def test_sigterm_leaves_no_process_and_no_port_behind(tmp_path: Path) -> None:
    async with up(tmp_path, *RUN) as run:
        await run.listening()
        url = urlsplit(run.url)
        children = run.children()
        assert children
        run.process.send_signal(signal.SIGTERM)
        await run.summary()
        for child in children:
            with pytest.raises(ProcessLookupError):
                os.kill(child, 0)
        with socket.socket() as probe:
            assert probe.connect_ex((url.hostname or "", url.port or 0)) != 0
    assert not (tmp_path / "wattscale" / "last-up.json").exists()


def _carried_out(bodies: list[tuple[str, dict[str, Any]]]) -> bool:
    """Whether the newest scaling decision among these messages is acknowledged as applied."""
    decided = [body["decision_id"] for subject, body in bodies if ".decision.scaling." in subject]
    acks = [body for subject, body in bodies if ".ack.scaling." in subject]
    applied = [body["decision_id"] for body in acks if body["status"] == "applied"]
    return bool(applied) and max(applied) >= max(decided)


async def test_a_killed_server_comes_back_and_no_decision_is_lost(tmp_path: Path) -> None:
    async with up(tmp_path, *RUN, "--duration", "300") as run:
        await run.listening()
        await two_of_each(run)
        async with outsider(run.url) as outside:
            before = await outside.until("decision.power", count=4)
            [server] = run.children("nats-server")
            os.kill(server, signal.SIGKILL)
            await outside.until("decision.power", count=len(before) + 4, seconds=90)
            await until(lambda: _carried_out(outside.bodies), "the newest decision carried out", 90)
            ids: dict[str, set[int]] = {}
            code, out, err = await run.cli("decisions", "--last", "2000", "--json")
            assert code == 0, err
        run.process.send_signal(signal.SIGTERM)
        summary = await run.summary()
    for line in out.splitlines():
        body = json.loads(line)
        if body["type"] == "wattscale.v1.power_decision":
            ids.setdefault(body["node"], set()).add(body["decision_id"])
    assert len(ids) == 4
    for seen in ids.values():
        assert seen == set(range(min(seen), max(seen) + 1))
    for pair in summary["scaling"].values():
        assert pair["scaled_decision_id"] == pair["decision_id"]
    assert summary["max_sum_of_caps_watts"] <= BUDGET_WATTS


def taken_port() -> tuple[socket.socket, int]:
    """A loopback port that is in use."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener, listener.getsockname()[1]


async def test_a_bus_that_cannot_be_reached_is_one_line_and_exit_code_3(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    code, out, err = await run_cli("up", "--nats-url", "nats://127.0.0.1:1", environment=environment)
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert "127.0.0.1:1" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--trace", "missing.csv"), "missing.csv"),
        (("--trace", "empty.csv"), "empty"),
        (("--trace", "unsorted.csv"), "line 3"),
        (("--trace", "malformed.jsonl"), "line 2"),
        (("--profile", "nowhere"), "nowhere"),
        (("--profile", "short"), "prefill_ttft"),
        (("--profile", "uneven"), "length"),
        (("--budget-watts", "100"), "minimum"),
        (("--nats-url", "http://127.0.0.1:1"), "127.0.0.1:1"),
        (("--speed", "0"), "--speed"),
        (("--no-such-option",), "--no-such-option"),
    ],
)
async def test_bad_input_is_one_clear_line_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "unsorted.csv").write_text("timestamp_ms,input_length,output_length\n5,1,1\n3,1,1\n")
    good = '{"timestamp": 0, "input_length": 5, "output_length": 5}\n'
    (tmp_path / "malformed.jsonl").write_text(good + "{not json\n")
    for name in ("short", "uneven"):
        (tmp_path / name).mkdir()
    (tmp_path / "short" / "prefill_raw_data.json").write_text('{"prefill_isl": [1, 2]}')
    (tmp_path / "short" / "decode_raw_data.json").write_text("{}")
    (tmp_path / "uneven" / "prefill_raw_data.json").write_text(
        '{"prefill_isl": [1, 2], "prefill_ttft": [1.0], "prefill_thpt_per_gpu": [1.0, 2.0]}'
    )
    (tmp_path / "uneven" / "decode_raw_data.json").write_text("{}")
    resolved = tuple(str(tmp_path / part) if (tmp_path / part).exists() else part for part in arguments)
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    code, out, err = await run_cli("up", "--duration", "5", *resolved, environment=environment)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "wattscale" / "last-up.json").exists()
    if arguments != ("--no-such-option",):
        # argparse prints its usage above the line.
        assert len(err.splitlines()) == 1


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    listener, port = taken_port()
    with listener:
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
        code, _, err = await run_cli("up", "--nats-port", str(port), "--duration", "5", environment=environment)
    assert code == 2
    assert str(port) in err
    assert len(err.splitlines()) == 1
