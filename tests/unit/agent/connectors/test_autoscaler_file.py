"""Settings of the autoscaler connector that cannot work are refused with what to do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agent.connectors.autoscaler.autoscaler_file import AutoscalerFile

GOOD: dict[str, Any] = {"deployment": "prod", "namespace": "ns"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"external_metrics": {"port": 6443}}, "tls_cert_file and tls_key_file are needed"),
        ({"external_metrics": {"tls_cert_file": "c"}}, "belong together"),
        ({"external_scaler": {"tls_cert_file": "c"}}, "belong together"),
        ({"external_scaler": {"tls_client_ca_file": "c"}}, "are needed as well"),
        ({"metrics_api": {"port": "none"}}, "nothing is served"),
        ({"namespace": ""}, "deployment and namespace are needed"),
        ({"deployments": {"a": {"namespace": "b"}}}, "set either deployments"),
        ({"max_age_s": 0}, "max_age_s"),
        ({"max_age": 5}, "max_age"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        AutoscalerFile.model_validate({**GOOD, **changes})


def test_grpc_and_external_metrics_are_off_unless_a_port_is_set() -> None:
    settings = AutoscalerFile.model_validate(GOOD)
    assert settings.external_metrics.port is None
    assert settings.external_scaler.port is None
    assert settings.metrics_api.port == 9104
    assert settings.served() == {"prod": "ns"}
