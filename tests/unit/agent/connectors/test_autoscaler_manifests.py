"""The manifests of the autoscaler connector's page: what they set, and that the connector reads them as its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.connectors.autoscaler.autoscaler_file import AutoscalerFile
from agent.core.scaling.autoscaler.lost_steps import lost_steps, tolerance_of
from agent.core.scaling.autoscaler.pool_address import named_pool

PAGE = Path(__file__).resolve().parents[4] / "agent/connectors/autoscaler/README.md"
OURS = (("prod", "prod-llama", "decode"),)
BY_KEDA = ("llama-decode", "llama-decode-push")


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
    assert ports == {
        "metrics-api": settings.metrics_api.port,
        "external-push": settings.external_scaler.port,
        "external": settings.external_metrics.port,
    }
    host = f"{service['metadata']['name']}.{namespace}.svc"
    (trigger,) = one_of("ScaledObject", "llama-decode")["spec"]["triggers"]
    assert trigger["metadata"]["url"].startswith(f"http://{host}:{settings.metrics_api.port}/v1/")
    assert (trigger["metricType"], trigger["metadata"]["targetValue"]) == ("AverageValue", "1")
    assert trigger["metadata"]["valueLocation"] == "replicas"
    (trigger,) = one_of("ScaledObject", "llama-decode-push")["spec"]["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("external-push", "AverageValue")
    assert trigger["metadata"]["scalerAddress"] == f"{host}:{settings.external_scaler.port}"
    assert named_pool(trigger["metadata"]) == OURS[0][1:]
    assert trigger["authenticationRef"]["name"] == of_kind("TriggerAuthentication")[0]["metadata"]["name"]
    api = one_of("APIService", "v1beta1.external.metrics.k8s.io")["spec"]
    assert api["service"] == {"name": "wattscale-autoscaler", "namespace": namespace, "port": ports["external"]}
    assert "insecureSkipTLSVerify" not in api
    assert AutoscalerFile(deployment="a", namespace="b").external_metrics.port is None


def test_the_connector_finds_all_of_decode_and_no_lost_step() -> None:
    scaled_objects = [one_of("ScaledObject", name) for name in BY_KEDA]
    direct = one_of("HorizontalPodAutoscaler", "llama-decode")
    found = lost_steps(OURS, [direct, *map(made_by_keda, scaled_objects)], scaled_objects)
    assert [(one.autoscaler, one.from_replicas) for one in found] == [
        ("llama-decode", None),
        ("keda-hpa-llama-decode", None),
        ("keda-hpa-llama-decode-push", None),
    ]
    assert all(not one.sentence for one in found)


@pytest.mark.parametrize("name", BY_KEDA)
@pytest.mark.parametrize("way", ["scaleUp", "scaleDown"])
def test_a_server_that_drops_the_field_is_found_out(way: str, name: str) -> None:
    direct = one_of("HorizontalPodAutoscaler", "llama-decode")
    scaled_object = one_of("ScaledObject", name)
    through = made_by_keda(scaled_object)
    del direct["spec"]["behavior"][way]["tolerance"]
    del through["spec"]["behavior"][way]["tolerance"]
    found = lost_steps(OURS, [direct, through], [scaled_object])
    assert len(found) == 2
    for one in found:
        assert one.from_replicas == 10
        assert f"{way}.tolerance is not set" in one.sentence
        assert "from 10 replicas on" in one.sentence


def test_windows_are_open_where_the_planner_has_its_own() -> None:
    through = [made_by_keda(one_of("ScaledObject", name)) for name in BY_KEDA]
    for hpa in (one_of("HorizontalPodAutoscaler", "llama-decode"), *through):
        tolerance, unset = tolerance_of(hpa)
        assert (tolerance.up, tolerance.down, unset) == (0.0, 0.0, ())
        for way in ("scaleUp", "scaleDown"):
            rules = hpa["spec"]["behavior"][way]
            assert rules["stabilizationWindowSeconds"] == 0
            assert all(one["value"] >= 200 and one["periodSeconds"] == 1 for one in rules["policies"])


def test_in_the_mixed_set_each_target_has_one_autoscaler() -> None:
    mixed = [one_of("HorizontalPodAutoscaler", "llama-frontend"), one_of("ScaledObject", "llama-prefill")]
    for decode in (
        one_of("HorizontalPodAutoscaler", "llama-decode"),
        *(one_of("ScaledObject", name) for name in BY_KEDA),
    ):
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


@pytest.mark.parametrize("kind", ["external", "external-push"])
@pytest.mark.parametrize("metadata", [None, {}, {"pool": "decode"}, {"deployment": "prod-llama"}, {"pool": ["decode"]}])
def test_a_trigger_of_another_external_scaler_is_not_ours(kind: str, metadata: object) -> None:
    scaled_object = one_of("ScaledObject", "llama-decode-push")
    scaled_object["spec"]["triggers"] = [{"type": kind, "metadata": metadata}]
    assert lost_steps(OURS, [made_by_keda(scaled_object)], [scaled_object]) == ()


def test_a_slash_in_a_name_is_read_back_as_it_is_asked_for() -> None:
    scaled_object = one_of("ScaledObject", "llama-decode")
    (trigger,) = scaled_object["spec"]["triggers"]
    trigger["metadata"]["url"] = "http://w:9104/v1/deployments/prod%2Fllama/pools/decode%2F70b"
    ours = (("prod", "prod/llama", "decode/70b"),)
    (found,) = lost_steps(ours, [made_by_keda(scaled_object)], [scaled_object])
    assert (found.deployment, found.pool) == ours[0][1:]
