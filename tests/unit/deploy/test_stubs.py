"""The generated Python of KEDA's interface is that of our definition, and the definition is what is on KEDA's wire."""

from __future__ import annotations

import pytest

from agent.connectors.autoscaler.keda import external_scaler_pb2
from deploy.generated_files import differing
from deploy.stubs import files

# Name, number, type and label of each field as KEDA publishes them (externalscaler.proto).
PUBLISHED = {
    "ScaledObjectRef": {"name": (1, "string"), "namespace": (2, "string"), "scalerMetadata": (3, "map")},
    "IsActiveResponse": {"result": (1, "bool")},
    "GetMetricSpecResponse": {"metricSpecs": (1, "repeated MetricSpec")},
    "MetricSpec": {"metricName": (1, "string"), "targetSize": (2, "int64"), "targetSizeFloat": (3, "double")},
    "GetMetricsRequest": {"scaledObjectRef": (1, "ScaledObjectRef"), "metricName": (2, "string")},
    "GetMetricsResponse": {"metricValues": (1, "repeated MetricValue")},
    "MetricValue": {"metricName": (1, "string"), "metricValue": (2, "int64"), "metricValueFloat": (3, "double")},
}
METHODS = {
    "IsActive": ("ScaledObjectRef", "IsActiveResponse", False),
    "StreamIsActive": ("ScaledObjectRef", "IsActiveResponse", True),
    "GetMetricSpec": ("ScaledObjectRef", "GetMetricSpecResponse", False),
    "GetMetrics": ("GetMetricsRequest", "GetMetricsResponse", False),
    "StreamMetricSpec": ("ScaledObjectRef", "GetMetricSpecResponse", True),
}
DESCRIPTOR = external_scaler_pb2.DESCRIPTOR


def test_the_generated_files_have_not_drifted() -> None:
    assert sorted(path.name for path in files()) == ["external_scaler_pb2.py", "external_scaler_pb2.pyi"]
    assert not differing(files()), "run python -m deploy.stubs"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_fields_are_the_published_ones(name: str) -> None:
    found = {}
    for field in DESCRIPTOR.message_types_by_name[name].fields:
        kinds = {field.TYPE_STRING: "string", field.TYPE_BOOL: "bool", field.TYPE_INT64: "int64"}
        kinds[field.TYPE_DOUBLE] = "double"
        nested = field.message_type
        kind = kinds[field.type] if nested is None else nested.name
        if nested is not None and nested.GetOptions().map_entry:
            assert [one.type for one in nested.fields] == [field.TYPE_STRING, field.TYPE_STRING]
            kind = "map"
        elif field.is_repeated:
            kind = f"repeated {kind}"
        found[field.name] = (field.number, kind)
    assert found == PUBLISHED[name]


def test_the_service_has_the_published_name_and_methods() -> None:
    service = DESCRIPTOR.services_by_name["ExternalScaler"]
    assert service.full_name == "externalscaler.ExternalScaler"
    found = {one.name: (one.input_type.name, one.output_type.name, one.server_streaming) for one in service.methods}
    assert found == METHODS
    assert not any(one.client_streaming for one in service.methods)
