"""A planner reads which model a deployment serves from its graph, through a Kubernetes API over HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import connect
from bus_schemas.jetstream.settings import BusSettings
from deploy.cli.errors import UsageError
from deploy.compose import planner_service
from deploy.compose.connectors.beside_planner import OWN_GRAPH
from deploy.compose.planner_service import with_detected_models
from deploy.compose.planner_settings import load
from deploy.nats.embedded import EmbeddedServer
from planner.runtime.config.settings import Settings
from tests.doubles.kubernetes import KubernetesDouble
from tests.kubeconfig_file import kubeconfig
from tests.shared_data import ROOT
from tests.unit.planner.adapters.test_graph_model import GUIDES_GRAPH, QWEN

DEPLOYMENT = "dynamo-system-vllm-disagg"
KIND = ("nvidia.com", "dynamographdeployments")
TOKEN = "planner-token"
EVERYTHING = {TOKEN: lambda verb, resource: True}


def graph(namespace: str = "dynamo-system", name: str = "vllm-disagg") -> dict[str, Any]:
    return {**json.loads(json.dumps(GUIDES_GRAPH)), "metadata": {"namespace": namespace, "name": name}}


def account_file(folder: Path, url: str) -> Path:
    """A kubeconfig for the planner's account."""
    return kubeconfig(folder / "kubeconfig", url, TOKEN, "dynamo-system")


def settings(folder: Path, url: str, *more: str, deployment: str = DEPLOYMENT) -> Settings:
    overrides = [f"kubernetes.kubeconfig={account_file(folder, url)}", f"deployments.{deployment}.sizing=load", *more]
    return load(None, {"namespace": deployment}, overrides, environ={}).settings


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "wattscale.planner"]


async def test_the_model_of_a_deployment_is_the_one_that_its_graph_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with KubernetesDouble(rights=EVERYTHING) as kube:
        await kube.put(*KIND, graph())
        found = await with_detected_models(settings(tmp_path, kube.url), {})
    assert found.deployments[DEPLOYMENT].model == QWEN
    assert lines(caplog) == [f"Detected model name from deployment: {QWEN}"]


async def test_the_operators_variable_names_the_graph_of_a_deployment_with_another_name(tmp_path: Path) -> None:
    async with KubernetesDouble(rights=EVERYTHING) as kube:
        await kube.put(*KIND, graph())
        given = settings(tmp_path, kube.url, deployment="dynamo")
        found = await with_detected_models(given, {OWN_GRAPH: "vllm-disagg"})
    assert found.deployments["dynamo"].model == QWEN


async def test_a_model_that_is_set_stays_and_a_difference_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with KubernetesDouble(rights=EVERYTHING) as kube:
        await kube.put(*KIND, graph())
        found = await with_detected_models(settings(tmp_path, kube.url, "deployments.*.model=llama"), {})
    assert found.deployments[DEPLOYMENT].model == "llama"
    assert lines(caplog)[-1] == f"model llama is set, and the deployment serves {QWEN}: set one"


async def test_a_missing_right_is_named_with_what_to_allow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with KubernetesDouble(rights={TOKEN: lambda verb, resource: False}) as kube:
        await kube.put(*KIND, graph())
        found = await with_detected_models(settings(tmp_path, kube.url), {})
    assert found.deployments[DEPLOYMENT].model == ""
    assert "allow get on dynamographdeployments.nvidia.com" in lines(caplog)[-1]
    assert "metrics of any model are taken" in lines(caplog)[-1]


async def test_a_token_that_the_server_does_not_know_is_named_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with KubernetesDouble(rights={}) as kube:
        await kube.put(*KIND, graph())
        await with_detected_models(settings(tmp_path, kube.url), {})
        assert len(kube.requests) == 1
    assert "the Kubernetes API: 401: Unauthorized" in lines(caplog)[-1]


async def test_get_is_the_only_right_that_is_needed(tmp_path: Path) -> None:
    right = ("get", "dynamographdeployments")
    async with KubernetesDouble(rights={TOKEN: lambda verb, resource: (verb, resource) == right}) as kube:
        await kube.put(*KIND, graph())
        found = await with_detected_models(settings(tmp_path, kube.url), {})
    assert found.deployments[DEPLOYMENT].model == QWEN


async def test_a_graph_that_is_not_there_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with KubernetesDouble(rights=EVERYTHING) as kube:
        await with_detected_models(settings(tmp_path, kube.url), {})
    assert f"no DynamoGraphDeployment has the Dynamo namespace {DEPLOYMENT}" in lines(caplog)[-1]


async def test_a_server_that_fails_first_is_asked_again(tmp_path: Path) -> None:
    async with KubernetesDouble(rights=EVERYTHING) as kube:
        await kube.put(*KIND, graph())
        kube.fail(503)
        found = await with_detected_models(settings(tmp_path, kube.url), {})
    assert found.deployments[DEPLOYMENT].model == QWEN


async def test_a_server_that_never_answers_holds_no_planner_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner_service, "DETECT_WITHIN_S", 0.2)
    async with KubernetesDouble(rights=EVERYTHING) as kube:
        gone = kube.url
    found = await with_detected_models(settings(tmp_path, gone), {})
    assert found.deployments[DEPLOYMENT].model == ""
    assert lines(caplog)[-1].startswith("No model name from deployment: the Kubernetes API: ")


async def test_outside_of_kubernetes_nothing_is_asked_and_on_without_access_is_refused() -> None:
    plain = load(None, {"namespace": "a-b"}, environ={}).settings
    assert await with_detected_models(plain, {}) is plain
    wanted = load(None, {"namespace": "a-b"}, ["kubernetes.mode=on"], environ={}).settings
    with pytest.raises(UsageError, match="kubernetes: not in a pod"):
        await with_detected_models(wanted, {})


async def test_a_planner_that_starts_logs_the_line_of_the_power_guide(tmp_path: Path) -> None:
    async with KubernetesDouble(rights=EVERYTHING) as kube, EmbeddedServer(tmp_path / "nats") as server:
        await kube.put(*KIND, graph())
        bus = await connect(BusSettings(servers=(server.url,)))
        try:
            await stream_admin.apply(bus)
        finally:
            await bus.close()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli.main", "planner", "run", "--guide-defaults", "load"),
            *(f"--namespace={DEPLOYMENT}", "--no-operation", "--set", "health.port=none"),
            *("--set", f"bus.servers=[{server.url}]"),
            *("--set", f"kubernetes.kubeconfig={account_file(tmp_path, kube.url)}"),
            cwd=ROOT,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        found = ""
        try:
            async with asyncio.timeout(60.0):
                while "Detected model name from deployment" not in found:
                    line = await process.stderr.readline()
                    assert line, "the planner ended"
                    found = json.loads(line)["message"]
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 60) == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()
    assert found == f"Detected model name from deployment: {QWEN}"
