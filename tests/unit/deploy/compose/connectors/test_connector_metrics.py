"""The pages of connectors: second writers by their kind, and no metric that METRICS.md does not have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from agent.core.scaling.scaling_types import WriterKind
from agent.runtime.agent_metrics import CONNECTOR_METRICS
from deploy.compose.connectors.autoscaler_service import AutoscalerView
from deploy.compose.connectors.connector_metrics import ChannelMetrics, SecondWriterMetrics
from deploy.compose.connectors.connector_process import metrics_page


@dataclass(frozen=True)
class ComparedCounts:
    deployment: str
    second_writers: Mapping[str, WriterKind] | None


def test_second_writers_are_counted_by_kind_and_left_out_where_nothing_was_compared() -> None:
    found = {"prefill": WriterKind.PERSON, "decode": WriterKind.AUTOSCALER, "other": WriterKind.AUTOSCALER}
    page = metrics_page(
        SecondWriterMetrics(ComparedCounts("chat", found), ComparedCounts("well", {}), ComparedCounts("new", None))
    )
    (family,) = text_string_to_metric_families(page.decode())
    assert {(one.labels["deployment"], one.labels["writer"]): one.value for one in family.samples} == {
        ("chat", "autoscaler"): 2,
        ("chat", "person"): 1,
        ("chat", "other"): 0,
        ("well", "autoscaler"): 0,
        ("well", "person"): 0,
        ("well", "other"): 0,
    }


def test_the_table_has_every_metric_with_its_type_and_its_words() -> None:
    known = {one.name.removesuffix("_total"): one for one in CONNECTOR_METRICS}
    families = [
        family
        for collector in (ChannelMetrics(), SecondWriterMetrics(), AutoscalerView())
        for family in collector.collect()
    ]
    assert len(families) >= 8
    for family in families:
        one = known[family.name]
        assert (family.type, family.documentation) == (one.kind, one.help)
