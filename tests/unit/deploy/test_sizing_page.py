"""``deploy/SIZING.md``: its measured figures stand on the pages that it names, and its products are right."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime

import pytest
import yaml

from agent.runtime.agent_file import AgentFile
from agent.runtime.service import HEARTBEATS_PER_LEASE
from bus_schemas import codec, v1
from bus_schemas.streams import ACKS, DECISIONS, KV_STREAM, MAX_CONSUMERS, TELEMETRY, stream_specs
from bus_schemas.subjects import Subjects
from deploy.cli.main import build_parser
from planner.runtime.config.settings import SiteSettings
from tests.shared_data import ROOT

PAGE = ROOT / "deploy" / "SIZING.md"
REPORT_BYTES, DECISION_BYTES, ANSWER_BYTES = 5000, 2048, 2048
PER_NODE, WAVE_PER_S, READ_PER_S, READ_PERCENT = 8, 2019.0, 1250.0, 23.0
GIB = 1 << 30
SPECS = {one.name: one for one in stream_specs(Subjects())}


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    (section,) = [part for part in PAGE.read_text(encoding="utf-8").split("\n## ") if part.startswith(title)]
    found = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return found[2:] if title == "Measured" else found


@pytest.mark.parametrize("row", rows("Measured"), ids=lambda row: row[0][:30])
def test_a_measured_figure_stands_on_the_page_that_is_named(row: list[str]) -> None:
    _, measured, where = row
    (link,) = re.findall(r"\]\(([^)#]+)#[\w-]+\)", where)
    assert measured.strip("`") in (PAGE.parent / link).read_text(encoding="utf-8")


def products(nodes: int) -> list[str]:
    """The column of one size of site."""
    interval_s, lease_s = AgentFile(node="n").telemetry_interval_s, SiteSettings(budget_watts=1).lease_s
    renewals = nodes / (lease_s / 3)
    answers = renewals + nodes / min(AgentFile(node="n").heartbeat_s, lease_s / HEARTBEATS_PER_LEASE)
    kept = (
        SPECS[DECISIONS].max_msgs_per_subject * DECISION_BYTES
        + SPECS[ACKS].max_msgs_per_subject * ANSWER_BYTES
        + SPECS[KV_STREAM].max_msgs_per_subject * DECISION_BYTES
    )
    reports = nodes / interval_s
    return [
        f"{nodes * PER_NODE:,}",
        f"{reports:,.0f}",
        f"{reports * REPORT_BYTES / 1e6:.1f}",
        f"{renewals:,.0f}",
        f"{answers:,.0f}",
        f"{nodes / WAVE_PER_S:.1f}",
        f"{READ_PERCENT * reports / READ_PER_S:.0f}",
        f"{nodes * kept / GIB:.1f}",
    ]


def test_the_products_are_right() -> None:
    head, _, *body = rows("Arithmetic")
    for column, title in enumerate(head, start=1):
        nodes = int(title.split()[-2].replace(",", ""))
        assert [row[column] for row in body] == products(nodes), title


def test_messages_of_a_node_are_no_larger_than_assumed() -> None:
    now, names = datetime.now(UTC), [f"GPU-{uuid.UUID(int=(1 << 127) + index)}" for index in range(PER_NODE)]
    gpus = [
        v1.GpuTelemetry(
            gpu=name, index=index, model="NVIDIA H100 80GB HBM3", draw_watts=612.345, granted_watts=650.0,
            requested_watts=650.0, enforced_watts=650.0, default_watts=700.0, min_watts=200.0, max_watts=700.0,
            energy_joules=123456789.123, throttle_reasons=("sw_power_cap",), deployment="prod-chat", pool="decode",
            role="decode", worker="chat-vllmdecodeworker-0-6f7d9", pod="prod/chat-vllmdecodeworker-6f7d9-x2x4q",
        )
        for index, name in enumerate(names)
    ]  # fmt: skip
    caps = [
        v1.GpuCap(gpu=name, cap_watts=650.0, fallback_watts=200.0, charged_watts=650.0, highest_watts=700.0)
        for name in names
    ]
    report = v1.NodeTelemetry(time=now, node="gpu-node-0001", gpus=tuple(gpus), applied_decision_id=123456)
    decision = v1.PowerDecision(
        time=now, node="gpu-node-0001", decision_id=123456, incarnation="a1b2c3d4", epoch=12, valid_for_s=30.0,
        caps=tuple(caps), site="row-1", budget_watts=18000.0,
        reasons=(v1.Reason(code="rebalance", text="5200 W for 8 GPUs"),),
    )  # fmt: skip
    answer = v1.PowerAck(
        time=now, node="gpu-node-0001", decision_id=123456, applied_decision_id=123456, incarnation="a1b2c3d4",
        epoch=12, status=v1.AckStatus.APPLIED, boot=uuid.uuid4().hex, clock_s=123456.789,
        gpus=tuple(v1.GpuInForce(gpu=name, requested_watts=650.0, enforced_watts=650.0) for name in names),
    )  # fmt: skip
    for message, most in ((report, REPORT_BYTES), (decision, DECISION_BYTES), (answer, ANSWER_BYTES)):
        headers = codec.headers(message, "power-gpu-node-0001-a1b2c3d4-12-123456", "planner-0")
        assert len(codec.encode(message)) + sum(len(f"{key}: {value}\r\n") for key, value in headers.items()) <= most


def test_settings_that_the_page_names_are_as_it_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    values = yaml.safe_load((ROOT / "deploy/helm/wattscale/values.yaml").read_text(encoding="utf-8"))["nats"]
    assert f"`nats.storage.size` is {values['storage']['size'].removesuffix('Gi')} Gi" in text
    assert values["resources"]["limits"]["memory"] == "1Gi"
    assert f"a stream takes {MAX_CONSUMERS:,} at most" in text
    assert f"`stale_s` ({SiteSettings(budget_watts=1).stale_s:g} s)" in text
    full_at = next(nodes for nodes in range(100, 10_000, 100) if float(products(nodes)[-1]) >= 8)
    passing = SPECS[TELEMETRY].max_bytes
    assert f"{passing >> 20} MiB of them" in text
    assert f"at 10,000 nodes those of the last {passing / (10_000 * REPORT_BYTES):.1f} s" in text
    assert f"full at about {round(full_at, -3):,} nodes" in text


def test_the_command_is_one() -> None:
    (command,) = re.findall(r"`wattscale ([^`]+)`", PAGE.read_text(encoding="utf-8"))
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(command.split())
    assert ended.value.code == 0
