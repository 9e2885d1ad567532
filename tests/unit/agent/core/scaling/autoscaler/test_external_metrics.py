"""The external metrics API: paths, selectors and the JSON that answers them."""

from __future__ import annotations

import pytest

from agent.core.scaling.autoscaler.external_metrics import (
    ROOT,
    MetricRefusedError,
    WantedPool,
    asked_metric,
    discovery,
    may_select,
    metric_values,
    selected,
    status_of,
)

WHEN = "2026-11-26T00:31:58Z"
DECODE = WantedPool("prod", "ns", "decode", 21, WHEN)
OTHER = WantedPool("other", "ns", "decode", 3, WHEN)


def test_a_pool_is_one_item_with_its_count_as_a_quantity() -> None:
    found = metric_values([DECODE], "ns", "wattscale-decode", "pool=decode")
    assert found["kind"] == "ExternalMetricValueList"
    assert found["apiVersion"] == "external.metrics.k8s.io/v1beta1"
    labels = {"deployment": "prod", "pool": "decode"}
    assert found["items"] == [
        {"metricName": "wattscale-decode", "metricLabels": labels, "timestamp": WHEN, "value": "21"}
    ]


def test_two_deployments_are_never_added_up() -> None:
    with pytest.raises(MetricRefusedError, match="wanted by other and prod") as caught:
        metric_values([DECODE, OTHER], "ns", "wattscale-decode", "")
    assert caught.value.status == 400
    found = metric_values([DECODE, OTHER], "ns", "wattscale-decode", "deployment=other")
    assert found["items"][0]["value"] == "3"


@pytest.mark.parametrize(
    ("namespace", "metric", "selector"),
    [
        ("elsewhere", "wattscale-decode", ""),
        ("ns", "wattscale-x", ""),
        ("ns", "decode", ""),
        ("ns", "wattscale-decode", "a=b"),
    ],
)
def test_what_is_not_wanted_is_not_found_and_no_empty_list(namespace: str, metric: str, selector: str) -> None:
    with pytest.raises(MetricRefusedError) as caught:
        metric_values([DECODE], namespace, metric, selector)
    assert caught.value.status == 404
    assert status_of(caught.value)["kind"] == "Status"


def test_selectors_of_equalities_are_read_and_others_refused() -> None:
    assert selected("") == {}
    assert selected("pool=decode, deployment==prod") == {"pool": "decode", "deployment": "prod"}
    for text in ("pool!=decode", "pool in (a,b)", "pool", "!pool", "pool=a,pool=b", "=a"):
        with pytest.raises(MetricRefusedError) as caught:
            selected(text)
        assert caught.value.status == 400


def test_a_selector_may_mean_every_deployment_or_one() -> None:
    for text in ("", "pool=decode", "deployment=prod", "pool=decode,deployment==prod"):
        assert may_select(text, "prod")
    assert may_select("pool=decode", "other")
    assert not may_select("deployment=prod", "other")


def test_only_discovery_and_metrics_of_a_namespace_are_served() -> None:
    assert asked_metric(ROOT) is None
    assert asked_metric(f"{ROOT}/") is None
    assert asked_metric(f"{ROOT}/namespaces/ns/wattscale-decode") == ("ns", "wattscale-decode")
    for path in (
        "/",
        "/healthz",
        f"{ROOT}/namespaces/ns",
        f"{ROOT}/nodes/ns/m",
        f"{ROOT}/namespaces/ns/m/x",
        f"{ROOT}x",
    ):
        with pytest.raises(MetricRefusedError):
            asked_metric(path)


def test_discovery_names_each_metric_once() -> None:
    found = discovery(["decode", "prefill", "decode"])
    assert [one["name"] for one in found["resources"]] == ["wattscale-decode", "wattscale-prefill"]
    assert discovery([])["resources"] == []
