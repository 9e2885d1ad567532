"""The settings of the autoscaler connector as operators write them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from agent.connectors.bus_claims import CLAIM_TTL_S
from agent.connectors.connector_file import ClaimTtl, ConnectorHttpSection
from agent.runtime.agent_file import HttpPort, SettingsSection
from bus_schemas.jetstream.settings import BusSettings

MAX_AGE_S = 10.0


class MetricsApiSection(SettingsSection):
    """Where KEDA's ``metrics-api`` scaler asks, over HTTP."""

    host: str = "0.0.0.0"  # noqa: S104 - KEDA asks from another pod
    port: HttpPort = 9104


class ServedOverTls(SettingsSection):
    """A server's certificate and key, which belong together."""

    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None

    @property
    def files(self) -> tuple[Path, Path] | None:
        """Certificate and key; None where they are not set."""
        if self.tls_cert_file is None or self.tls_key_file is None:
            return None
        return self.tls_cert_file, self.tls_key_file

    @model_validator(mode="after")
    def _a_pair(self) -> ServedOverTls:
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError("tls_cert_file and tls_key_file belong together")
        return self


class ExternalMetricsSection(ServedOverTls):
    """The external metrics API for HPA, over TLS. Off unless ``port`` is set."""

    host: str = "0.0.0.0"  # noqa: S104 - the API server asks from its own host
    port: HttpPort = None
    reload_s: float = Field(default=30.0, gt=0, le=3600)
    """How often the front proxy's authority and our certificate are read again."""

    @model_validator(mode="after")
    def _fit_together(self) -> ExternalMetricsSection:
        if self.port is not None and self.tls_cert_file is None:
            raise ValueError("port is set: tls_cert_file and tls_key_file are needed, for <service>.<namespace>.svc")
        return self


class ExternalScalerSection(ServedOverTls):
    """KEDA's external scaler over gRPC. Off unless ``port`` is set; needs the extra ``keda``.

    Without certificate and key: no TLS. Renewed files are read at the next connection.
    """

    host: str = "0.0.0.0"  # noqa: S104 - KEDA asks from another pod
    port: HttpPort = None
    tls_client_ca_file: Path | None = None
    """Only clients with a certificate of this authority are answered."""

    @model_validator(mode="after")
    def _fit_together(self) -> ExternalScalerSection:
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("tls_client_ca_file is set: tls_cert_file and tls_key_file are needed as well")
        return self


class ServedDeployment(SettingsSection):
    """One deployment whose counts are served."""

    namespace: str = Field(min_length=1)
    """Of Kubernetes, where its autoscalers are."""


class AutoscalerFile(SettingsSection):
    """All settings of ``wattscale connector autoscaler``: one deployment, or several in ``deployments``."""

    deployment: str = ""
    namespace: str = ""
    deployments: dict[str, ServedDeployment] = Field(default_factory=dict)
    """By name, instead of ``deployment`` and ``namespace``."""
    max_age_s: float = Field(default=MAX_AGE_S, ge=1, le=600)
    """How long ago the bus may last have confirmed that a decision is the newest; after that: an error, no value."""
    metrics_api: MetricsApiSection = MetricsApiSection()
    external_scaler: ExternalScalerSection = ExternalScalerSection()
    external_metrics: ExternalMetricsSection = ExternalMetricsSection()
    kubeconfig: Path | None = None
    read_back_s: float = Field(default=60.0, gt=0, le=86400)
    """How often HorizontalPodAutoscalers and ScaledObjects are read."""
    name: str = ""
    """What the claim calls this connector; empty: ``autoscaler on <host>``."""
    claim_ttl_s: ClaimTtl = CLAIM_TTL_S
    nats: BusSettings = BusSettings()
    http: ConnectorHttpSection = ConnectorHttpSection()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _fit_together(self) -> AutoscalerFile:
        if self.deployments and (self.deployment or self.namespace):
            raise ValueError("set either deployments, or deployment with namespace")
        if not self.deployments and not (self.deployment and self.namespace):
            raise ValueError("deployment and namespace are needed, or deployments")
        if self.metrics_api.port is None and self.external_scaler.port is None and self.external_metrics.port is None:
            raise ValueError("nothing is served: set metrics_api.port, external_scaler.port or external_metrics.port")
        return self

    def served(self) -> dict[str, str]:
        """By deployment, the namespace of its autoscalers."""
        if self.deployments:
            return {name: one.namespace for name, one in self.deployments.items()}
        return {self.deployment: self.namespace}
