"""The manifests of the autoscaler connector's page: what they set, and that the connector reads them as its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.connectors.autoscaler.autoscaler_file import AutoscalerFile
from agent.core.scaling.autoscaler.lost_steps import lost_steps, tolerance_of

PAGE = Path(__file__).resolve().parents[4] / "agent/connectors/autoscaler/README.md"
OURS = (("prod", "prod-llama", "decode"),)


def documents() -> list[dict[str, Any]]:
    """All YAML documents of the page."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [one for block in blocks for one in yaml.safe_load_all(block)]


def of_kind(kind: str, name: str = "") -> list[dict[str, Any]]:
    return [one for one in documents() if one.get("kind") == kind and name in ("", one["metadata"]["name"])]


def one_of(kind: str, name: str) -> dict[str, Any]:
    (found,) = of_kind(kind, name)
    return found


def made_by_keda(scaled_object: dict[str, Any]) -> dict[str, Any]:
    """The HPA that KEDA makes of a ScaledObject."""
    meta = {"name": f"keda-hpa-{scaled_object['metadata']['name']}", "namespace": "prod"}
    settings = scaled_object["spec"].get("advanced", {}).get("horizontalPodAutoscalerConfig", {})
    return {"metadata": meta, "spec": {"behavior": settings.get("behavior")}}


def test_the_settings_are_valid_and_serve_what_the_manifests_ask() -> None:
    (written,) = [one for one in documents() if "kind" not in one]
    settings = AutoscalerFile.model_validate(written)
    ((deployment, namespace),) = settings.served().items()
    assert (namespace, deployment) == OURS[0][:2]
    service = one_of("Service", "wattscale-autoscaler")
    ports = {one["name"]: one["port"] for one in service["spec"]["ports"]}
    assert ports == {"metrics-api": settings.metrics_api.port, "external": settings.external_metrics.port}
    host = f"{service['metadata']['name']}.{namespace}.svc"
    (trigger,) = one_of("ScaledObject", "llama-decode")["spec"]["triggers"]
    assert trigger["metadata"]["url"].startswith(f"http://{host}:{settings.metrics_api.port}/v1/")
    assert (trigger["metricType"], trigger["metadata"]["targetValue"]) == ("AverageValue", "1")
    assert trigger["metadata"]["valueLocation"] == "replicas"
    api = one_of("APIService", "v1beta1.external.metrics.k8s.io")["spec"]
    assert api["service"] == {"name": "wattscale-autoscaler", "namespace": namespace, "port": ports["external"]}
    assert "insecureSkipTLSVerify" not in api
    assert AutoscalerFile(deployment="a", namespace="b").external_metrics.port is None


def test_the_connector_finds_both_of_decode_and_no_lost_step() -> None:
    scaled_object = one_of("ScaledObject", "llama-decode")
    direct = one_of("HorizontalPodAutoscaler", "llama-decode")
    found = lost_steps(OURS, [direct, made_by_keda(scaled_object)], [scaled_object])
    assert [(one.autoscaler, one.from_replicas) for one in found] == [
        ("llama-decode", None),
        ("keda-hpa-llama-decode", None),
    ]
    assert all(not one.sentence for one in found)


@pytest.mark.parametrize("way", ["scaleUp", "scaleDown"])
def test_a_server_that_drops_the_field_is_found_out(way: str) -> None:
    direct = one_of("HorizontalPodAutoscaler", "llama-decode")
    scaled_object = one_of("ScaledObject", "llama-decode")
    through = made_by_keda(scaled_object)
    del direct["spec"]["behavior"][way]["tolerance"]
    del through["spec"]["behavior"][way]["tolerance"]
    for one in lost_steps(OURS, [direct, through], [scaled_object]):
        assert one.from_replicas == 10
        assert f"{way}.tolerance is not set" in one.sentence
        assert "from 10 replicas on" in one.sentence


def test_windows_are_open_where_the_planner_has_its_own() -> None:
    scaled_object = one_of("ScaledObject", "llama-decode")
    for hpa in (one_of("HorizontalPodAutoscaler", "llama-decode"), made_by_keda(scaled_object)):
        tolerance, unset = tolerance_of(hpa)
        assert (tolerance.up, tolerance.down, unset) == (0.0, 0.0, ())
        for way in ("scaleUp", "scaleDown"):
            rules = hpa["spec"]["behavior"][way]
            assert rules["stabilizationWindowSeconds"] == 0
            assert all(one["value"] >= 200 and one["periodSeconds"] == 1 for one in rules["policies"])


def test_in_the_mixed_set_each_target_has_one_autoscaler() -> None:
    mixed = [one_of("HorizontalPodAutoscaler", "llama-frontend"), one_of("ScaledObject", "llama-prefill")]
    for decode in (one_of("HorizontalPodAutoscaler", "llama-decode"), one_of("ScaledObject", "llama-decode")):
        targets = [one["spec"]["scaleTargetRef"]["name"] for one in (*mixed, decode)]
        assert sorted(targets) == ["llama-decode", "llama-frontend", "llama-prefill"]
    assert mixed[0]["spec"]["metrics"][0]["resource"]["name"] == "cpu"
    # Neither is ours: their own triggers scale them, and no note is made of them.
    assert lost_steps(OURS, [mixed[0], made_by_keda(mixed[1])], [mixed[1]]) == ()


def test_an_autoscaler_of_another_namespace_or_deployment_is_not_ours() -> None:
    direct = one_of("HorizontalPodAutoscaler", "llama-decode")
    assert lost_steps((("prod", "other", "decode"), ("elsewhere", "prod-llama", "decode")), [direct], []) == ()


@pytest.mark.parametrize("address", ["http://[x", "http://[x]/v1/deployments/a/pools/b", "http://a\u2100.b/v1"])
def test_a_trigger_whose_address_cannot_be_read_hides_no_other(address: str) -> None:
    scaled_object = one_of("ScaledObject", "llama-decode")
    bad = {"type": "metrics-api", "metadata": {"url": address}}
    scaled_object["spec"]["triggers"].insert(0, bad)
    (found,) = lost_steps(OURS, [made_by_keda(scaled_object)], [scaled_object])
    assert found.autoscaler == "keda-hpa-llama-decode"
