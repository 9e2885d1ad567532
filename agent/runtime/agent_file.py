"""The power agent's settings as operators write them: a YAML file, the environment, flags, in order of rising strength.

Owns the names and the refusals. An unknown key is refused by name with the nearest valid one: a misspelt limit must
not become no limit. Nothing here connects to anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from agent.runtime.settings import OnExit, PowerAgentSettings
from bus_schemas.jetstream.settings import BusSettings

ENVIRONMENT_PREFIX = "WATTSCALE_AGENT_"
"""``WATTSCALE_AGENT_HTTP__PORT=9101`` sets ``http.port``."""


class BadSettingsError(ValueError):
    """One line for each thing that is wrong."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SimulatedSection(_Section):
    """With ``driver: simulated``."""

    gpus: int = Field(default=8, ge=1, le=1024)
    default_watts: float = Field(default=700.0, gt=0)
    min_watts: float = Field(default=200.0, gt=0)
    max_watts: float = Field(default=700.0, gt=0)
    idle_watts: float = Field(default=75.0, ge=0)
    load_watts: float = Field(default=75.0, ge=0)
    """What the work on each GPU would draw without a cap."""
    lag_s: float = Field(default=0.15, ge=0)
    overshoot: float = Field(default=0.08, ge=0)
    ignores_writes: tuple[int, ...] = ()
    """GPUs, by index, whose writes succeed and change nothing."""
    faults: dict[int, dict[Literal["enumerate", "read", "set_limit"], str]] = Field(default_factory=dict)
    """By GPU index and call: the error to answer with."""


class KubernetesSection(_Section):
    """Where pods come from."""

    mode: Literal["auto", "on", "off"] = "auto"
    """auto: on inside a pod, or where a kubeconfig is named."""
    kubeconfig: Path | None = None
    pod_resources_socket: Path = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
    proc_root: Path = Path("/proc")
    deployment_label: str = "nvidia.com/dynamo-graph-deployment-name"
    pool_label: str = "nvidia.com/dynamo-component"
    role_label: str = "nvidia.com/dynamo-sub-component-type"


class AnnotationSection(_Section):
    """Limits by pod annotation: the targets where there is no bus, further upper bounds where there is."""

    enabled: bool = True
    safe_default_watts: float | None = Field(default=None, gt=0)
    """For an annotation that can not be read; needed wherever annotations are enabled and Kubernetes is on."""


def _port(value: Any) -> Any:
    """``none`` is how a flag or the environment writes null."""
    return None if isinstance(value, str) and value.lower() == "none" else value


class HttpSection(_Section):
    """``/livez``, ``/readyz`` and ``/metrics``."""

    host: str = "0.0.0.0"  # noqa: S104 - Prometheus and the kubelet come from outside the pod
    port: Annotated[int | None, Field(ge=0, le=65535), BeforeValidator(_port)] = 9101
    """0: one that the system chooses, named in the log; ``none`` or null: no pages."""


class AgentFile(_Section):
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
    """A file of the host that every agent of this node names: the second one waits until the first has ended."""
    on_exit: OnExit = OnExit.KEEP
    dry_run: bool = False
    telemetry_interval_s: float = Field(default=1.0, gt=0, le=60)
    heartbeat_s: float = Field(default=10.0, gt=0, le=300)
    reconcile_interval_s: float = Field(default=15.0, gt=0, le=15)
    call_timeout_s: float = Field(default=5.0, gt=0)
    grace_s: float = Field(default=30.0, gt=0)
    ready_within_s: float = Field(default=45.0, gt=0)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _fit_together(self) -> AgentFile:
        if self.ready_within_s <= self.reconcile_interval_s:
            raise ValueError("ready_within_s must be above reconcile_interval_s, or the agent is never ready")
        if self.simulated.min_watts > self.simulated.max_watts:
            raise ValueError("simulated.min_watts is above simulated.max_watts")
        return self

    def for_service(self) -> PowerAgentSettings:
        """What the service is told."""
        return PowerAgentSettings(
            node=self.node,
            telemetry_interval_s=self.telemetry_interval_s,
            heartbeat_s=self.heartbeat_s,
            reconcile_interval_s=self.reconcile_interval_s,
            call_timeout_s=self.call_timeout_s,
            grace_s=self.grace_s,
            ready_within_s=self.ready_within_s,
            dry_run=self.dry_run,
            on_exit=self.on_exit,
        )


def load(path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> AgentFile:
    """Settings in force. ``flags``: by dotted name, None where not given. Raises BadSettingsError."""
    values: dict[str, Any] = {}
    if path is not None:
        _merge(values, _from_file(path))
    for name, text in _from_environment(environment):
        _put(values, name.split("."), text, f"environment {name}")
    for name, value in flags.items():
        if value is not None:
            _put(values, name.split("."), value, f"flag for {name}")
    try:
        return AgentFile.model_validate(values)
    except ValidationError as error:
        raise BadSettingsError("; ".join(_lines(error))) from error


def _from_file(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadSettingsError(f"settings file {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise BadSettingsError(f"settings file {path}: not YAML: {str(error).splitlines()[0]}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise BadSettingsError(f"settings file {path}: a mapping of names to values is wanted at the top")
    return document


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    found = sorted(item for item in environment.items() if item[0].startswith(ENVIRONMENT_PREFIX))
    if found:
        import yaml  # An agent without file and variables does without the memory of it.

        for name, text in found:
            dotted = name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            try:
                yield dotted, yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise BadSettingsError(f"environment {name}: not YAML") from error


def _put(values: dict[str, Any], path: list[str], value: Any, source: str) -> None:
    for part in path[:-1]:
        below = values.setdefault(part, {})
        if below is None:
            below = values[part] = {}
        if not isinstance(below, dict):
            raise BadSettingsError(f"{source}: {part} is no section")
        values = below
    values[path[-1]] = value


def _merge(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _lines(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        where = [str(part) for part in problem["loc"]]
        name = ".".join(where)
        if problem["type"] == "extra_forbidden":
            yield f"unknown setting {name}{_nearest(where)}"
        elif problem["type"] == "missing":
            yield f"setting {name} is missing"
        else:
            yield f"{name or 'settings'}: {problem['msg']}"


def _nearest(where: list[str]) -> str:
    import difflib

    section: type[BaseModel] = AgentFile
    for part in where[:-1]:
        field = section.model_fields.get(part)
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return ""
        section = inner[0]
    found = difflib.get_close_matches(where[-1], section.model_fields, n=1)
    return f": did you mean {'.'.join([*where[:-1], found[0]])}?" if found else ""
