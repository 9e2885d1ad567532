"""The power agent's settings as operators write them: names, defaults, and the values that are refused.

Values only; ``deploy/compose`` reads them from a file, the environment and flags. Powers in watts, times in seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from agent.runtime.settings import OnExit, PowerAgentSettings
from bus_schemas.jetstream.settings import BusSettings

MOST_WATTS = 1e6
"""Of one GPU."""
LONGEST_S = 3600.0


class SettingsSection(BaseModel):
    """A part of a settings file: unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SimulatedSection(SettingsSection):
    """With ``driver: simulated``."""

    gpus: int = Field(default=8, ge=1, le=1024)
    default_watts: float = Field(default=700.0, gt=0, le=MOST_WATTS)
    min_watts: float = Field(default=200.0, gt=0, le=MOST_WATTS)
    max_watts: float = Field(default=700.0, gt=0, le=MOST_WATTS)
    idle_watts: float = Field(default=75.0, ge=0, le=MOST_WATTS)
    load_watts: float = Field(default=75.0, ge=0, le=MOST_WATTS)
    """What the work on each GPU would draw without a cap."""
    lag_s: float = Field(default=0.15, ge=0, le=LONGEST_S)
    overshoot: float = Field(default=0.08, ge=0, le=10)
    ignores_writes: tuple[Annotated[int, Field(ge=0, le=1023)], ...] = ()
    """Indices of the GPUs whose writes succeed and change nothing."""
    faults: dict[int, dict[Literal["enumerate", "read", "set_limit"], str]] = Field(default_factory=dict)
    """By GPU index and call: the error to answer with."""


def _unquoted(value: Any) -> Any:
    """YAML takes an unquoted ``on`` or ``off`` for true or false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class KubernetesSection(SettingsSection):
    """Where pods come from."""

    mode: Annotated[Literal["auto", "on", "off"], BeforeValidator(_unquoted)] = "auto"
    """auto: on inside a pod, or where a kubeconfig is named."""
    kubeconfig: Path | None = None
    pod_resources_socket: Path = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
    proc_root: Path = Path("/proc")
    deployment_label: str = "nvidia.com/dynamo-graph-deployment-name"
    pool_label: str = "nvidia.com/dynamo-component"
    role_label: str = "nvidia.com/dynamo-sub-component-type"


class AnnotationSection(SettingsSection):
    """Limits by pod annotation: the targets where there is no bus, further upper bounds where there is."""

    enabled: bool = True
    safe_default_watts: float | None = Field(default=None, gt=0, le=MOST_WATTS)
    """For an annotation that cannot be read; needed wherever annotations are enabled and Kubernetes is on."""


def _port(value: Any) -> Any:
    """``none`` is how a flag or the environment writes null."""
    return None if isinstance(value, str) and value.lower() == "none" else value


HttpPort = Annotated[int | None, Field(ge=0, le=65535), BeforeValidator(_port)]
"""0: one that the system chooses, named in the log; ``none`` or null: no server."""


class HttpSection(SettingsSection):
    """``/livez``, ``/readyz`` and ``/metrics``."""

    host: str = "0.0.0.0"  # noqa: S104 - Prometheus and the kubelet come from outside the pod
    port: HttpPort = 9101


class AgentFile(SettingsSection):
    """All settings of ``wattscale agent power``."""

    node: str = Field(min_length=1)
    driver: Literal["nvml", "simulated"] = "nvml"
    power_scope: Literal["auto", "gpu", "module"] = "auto"
    """module: the whole Grace Hopper module's power; auto: where the card has it."""
    simulated: SimulatedSection = SimulatedSection()
    nats: BusSettings | None = None
    kubernetes: KubernetesSection = KubernetesSection()
    annotations: AnnotationSection = AnnotationSection()
    http: HttpSection = HttpSection()
    state_file: Path | None = None
    """Limits found on the GPUs that annotations cap, kept over restarts."""
    lock_file: Path | None = None
    """A file of the host that every agent of this node locks: the second waits until the first has ended."""
    on_exit: OnExit = OnExit.KEEP
    dry_run: bool = False
    telemetry_interval_s: float = Field(default=1.0, gt=0, le=60)
    heartbeat_s: float = Field(default=10.0, gt=0, le=300)
    reconcile_interval_s: float = Field(default=15.0, gt=0, le=15)
    call_timeout_s: float = Field(default=5.0, gt=0, le=LONGEST_S)
    grace_s: float = Field(default=30.0, gt=0, le=LONGEST_S)
    hold_without_decision: bool = False
    """For an agent beside a planner that only advises: limits found at the start stay until a decision comes."""
    ready_within_s: float = Field(default=45.0, gt=0, le=LONGEST_S)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _fit_together(self) -> AgentFile:
        if self.ready_within_s <= self.reconcile_interval_s:
            raise ValueError("ready_within_s must be above reconcile_interval_s, or the agent is never ready")
        if self.simulated.min_watts > self.simulated.max_watts:
            raise ValueError("simulated.min_watts is above simulated.max_watts")
        return self

    def for_service(self) -> PowerAgentSettings:
        """The settings of the service."""
        return PowerAgentSettings(
            node=self.node,
            telemetry_interval_s=self.telemetry_interval_s,
            heartbeat_s=self.heartbeat_s,
            reconcile_interval_s=self.reconcile_interval_s,
            call_timeout_s=self.call_timeout_s,
            grace_s=self.grace_s,
            hold_without_decision=self.hold_without_decision,
            ready_within_s=self.ready_within_s,
            dry_run=self.dry_run,
            on_exit=self.on_exit,
        )
