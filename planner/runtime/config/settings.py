"""The shape of a planner's configuration file, checked as a whole before anything starts.

Values only, with their defaults; ``deploy/compose`` reads them and builds the planner from them. Power is in watts, and
times are in seconds of the load unless a comment says real seconds.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from bus_schemas.jetstream.settings import INBOX_PREFIX, BusSettings
from planner.runtime.config.url_path import path_of

MOST = 1e9
"""The largest number that any setting takes: a gigawatt, thirty years. A larger one is a typing error."""
MOST_COUNT = 1_000_000
MOST_PRIORITY = 1000
Positive = Annotated[float, Field(gt=0, le=MOST)]
NotNegative = Annotated[float, Field(ge=0, le=MOST)]
Share = Annotated[float, Field(gt=0, lt=1)]
CLASS_NAME = "^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"


def _class_name(value: str) -> str:
    if re.fullmatch(CLASS_NAME, value) is None:
        raise ValueError(
            "a class is 1 to 32 lower-case letters, digits and dashes, with a letter or digit at both ends,"
            " as in interactive"
        )
    return value


ClassName = Annotated[str, AfterValidator(_class_name), Field(json_schema_extra={"pattern": CLASS_NAME})]
"""A class of service. Its form is that of a label's value, so that it fits every system that it travels through."""
DEFAULT_PREDICTOR = "blend"


def classic_predictor() -> str:
    """0.9.1's own default, or the Kalman filter of its guide where the library of that one is missing."""
    return "arima" if find_spec("pmdarima") else "kalman"


class Block(BaseModel):
    """A part of the configuration. Unknown keys are refused; HPA's own names are accepted beside ours."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class PolicySettings(Block):
    """HPA's policy."""

    type: Literal["Pods", "Percent"]
    value: int = Field(gt=0, le=MOST_COUNT)
    period_s: Positive = Field(alias="periodSeconds")


class RulesSettings(Block):
    """HPA's ``scaleUp`` or ``scaleDown``. Without a window scale-ups go at once, and scale-downs wait in proportion to
    the start-up time: 300 s, HPA's own, where it is a minute."""

    stabilization_window_s: NotNegative | None = Field(default=None, alias="stabilizationWindowSeconds")
    policies: tuple[PolicySettings, ...] = ()
    select: Literal["Max", "Min", "Disabled"] = Field(default="Max", alias="selectPolicy")
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0


class BehaviorSettings(Block):
    """HPA's ``behavior``."""

    scale_up: RulesSettings = Field(default_factory=RulesSettings, alias="scaleUp")
    scale_down: RulesSettings = Field(default_factory=RulesSettings, alias="scaleDown")


class CurveSettings(Block):
    """A measured power curve, where the priors are not good enough. Watts per GPU."""

    p_s_watts: NotNegative
    p_u_watts: Positive
    alpha: Positive
    idle_watts: NotNegative
    min_watts: NotNegative
    max_watts: Positive
    useful_watts: NotNegative


Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class ReplicaWindowSettings(Block):
    """Bounds for a part of the local day. ``end`` at or before ``start`` means the next day; both are ``HH:MM``."""

    start: str
    end: str
    min_replicas: int | None = Field(default=None, ge=0, le=MOST_COUNT)
    max_replicas: int | None = Field(default=None, ge=0, le=MOST_COUNT)
    weekdays: tuple[Weekday, ...] = ()


class ReplicaScheduleSettings(Block):
    """Bounds over the day; outside all windows the pool's own bounds hold. Later windows win."""

    zone: str = "UTC"
    windows: tuple[ReplicaWindowSettings, ...]


class LoadSettings(Block):
    """Thresholds of ``sizing: load``: waiting requests a prefill replica, share of the decode KV cache in use."""

    prefill_queue_up: NotNegative = 0.5
    prefill_queue_down: NotNegative = 0.2
    decode_kv_up: Annotated[float, Field(ge=0, le=1)] = 0.9
    decode_kv_down: Annotated[float, Field(ge=0, le=1)] = 0.5
    decode_grace_intervals: int = Field(default=3, ge=0, le=MOST_COUNT)
    prefill_trend_intervals: int = Field(default=3, ge=0, le=MOST_COUNT)


class PoolSettings(Block):
    """One pool. ``role`` defaults to the pool's own name, ``gpus_per_replica`` to the profile's."""

    role: Literal["prefill", "decode", "aggregated", "frontend"] | None = None
    """frontend: a pool without GPUs, sized by ``requests_per_s``. If it is left out, another autoscaler may scale
    it."""
    requests_per_s: Positive | None = None
    """Requests per second that one replica of a frontend is meant to take."""
    component: str = ""
    """The name of its workers, where it is not the role's usual one: label ``dynamo_component`` of their metrics,
    ``nvidia.com/dynamo-component`` of their pods."""
    labels: dict[str, str] = Field(default_factory=dict)
    gpus_per_replica: int | None = Field(default=None, ge=1, le=MOST_COUNT)
    min_replicas: int = Field(default=1, ge=0, le=MOST_COUNT)
    max_replicas: int = Field(default=64, ge=0, le=MOST_COUNT)
    startup_s: NotNegative = 60.0
    min_gpus: int | None = Field(default=None, ge=1, le=MOST_COUNT)
    """Minimum number of GPUs: at least as many replicas as hold them."""
    max_step: int | None = Field(default=None, ge=1, le=MOST_COUNT)
    max_cap_watts: Positive | None = None
    """The highest cap of any GPU of this pool; with ``caps: fixed`` the cap itself."""
    behavior: BehaviorSettings = Field(default_factory=BehaviorSettings)
    fallback_replicas: int | None = Field(default=None, ge=0, le=MOST_COUNT)
    """For ``fallback: replicas``."""
    schedule: ReplicaScheduleSettings | None = None
    power_curve: CurveSettings | None = None
    learn_power: bool = True
    """Whether measured draw under load corrects ``p_u_watts``, the most that a GPU uses; off: the curve is kept as it
    is."""


class MetricsSettings(Block):
    """Where a deployment's metrics are read. ``stale_s`` and ``timeout_s`` are real seconds."""

    source: str | None = None
    """scrape, prometheus or simulated; default: ``scrape`` where there are ``urls``, else ``prometheus``."""
    urls: tuple[str, ...] = ()
    """Metrics pages of frontends and workers, for ``scrape``."""
    matchers: dict[str, str] = Field(default_factory=dict)
    """Labels that every series must carry, beside model and namespace."""
    window_s: Positive | None = None
    """The window of Prometheus queries; default: the planner's interval."""
    pull_s: Positive = 1.0
    """Real seconds between readings of queues and KV use, whose means over the interval decide in ``sizing: load`` and
    ``sla+load``. From Prometheus it is the step of ``avg_over_time``."""
    stale_s: Positive = 60.0
    timeout_s: Positive = 5.0


class DeploymentSettings(Block):
    """One deployment. Its key is the Dynamo namespace, ``{kubernetes namespace}-{graph deployment}``."""

    site: str = "default"
    model: str = ""
    namespace: str | None = None
    """Value of the label ``dynamo_namespace``; default: the deployment's name. Empty: any."""
    profile: Path | None = None
    """A folder with the engine's profile. Only ``sizing: load`` works without one."""
    gpu: str = "h200"
    moe: bool = False
    pools: dict[str, PoolSettings] = Field(default_factory=dict)
    """Default: one prefill and one decode pool."""
    ttft_ms: Positive = 500.0
    itl_ms: Positive = 50.0
    ttft_quantile: Share = 0.95
    """The quantile that is sized for. With ``slo_share``: where its controller begins."""
    slo_share: Share | None = None
    """The share of requests that is promised to meet both targets, such as 0.97. The quantile is then moved by what is
    measured, until that share is reached and no more. Unset: the quantile is fixed."""
    sizing: Literal["sla", "classic", "load", "sla+load"] = "sla"
    caps: Literal["joint", "fixed"] = "joint"
    """joint: caps are chosen together with counts. fixed: every GPU of a pool gets ``max_cap_watts``, and only counts
    are chosen; a cut of the budget still lowers it."""
    mode: Literal["active", "advisory", "paused"] = "active"
    connector: Literal["none", "virtual", "kubernetes", "local"] = "none"
    """The connector that this planner's process runs while it leads. none: another process carries decisions out."""
    connector_settings: Path | None = None
    """That connector's settings file. ``deployment`` and, where it is left out, ``nats`` are taken from here."""
    predictor: str = DEFAULT_PREDICTOR
    """A model's name, optionally followed by ``+log1p`` or ``+day``; these alone are appended to the default, which is
    that of ``classic_predictor`` with ``sizing: classic``."""
    forecast_quantile: Share | None = None
    """Default: ``ttft_quantile``, so that one knob moves both."""
    expected_isl_tokens: Positive | None = None
    """The mean input length that sizing assumes until lengths were observed; unset: it waits for them."""
    expected_osl_tokens: Positive | None = None
    """Likewise the mean output length."""
    drain_backlog_s: Positive = 30.0
    """Seconds, from the time when new replicas serve, in which they work off what waits by then."""
    max_gpus: int | None = Field(default=None, ge=1, le=MOST_COUNT)
    priority: int = Field(default=0, ge=-MOST_PRIORITY, le=MOST_PRIORITY)
    service_class: ClassName | None = None
    """The operator's word for the kind of load that the deployment serves, such as ``interactive`` or ``batch``. Plan
    records, reports and pages group figures by it, and a gateway reads how much of each class to shed. It changes no
    decision: which deployment goes short first is ``priority``. At most 16 classes on a site."""
    scaling_timeout_s: Positive = 1800.0
    wait_for: Literal["nothing", "ready", "complete"] | None = None
    """What a newer decision waits for, at most ``scaling_timeout_s``. nothing: it takes the place of one that is still
    being carried out. ready: until all replicas of the last one serve. complete: until it was acknowledged as carried
    out, with the leaving replicas gone. Default: ``nothing``; ``complete`` where ``sizing`` is not ``sla``, ``caps``
    are fixed, or the site's ``shortage`` is proportional."""
    wait_for_scaling: bool | None = None
    """Former name, accepted for one release: true is ``wait_for: complete``, false ``wait_for: nothing``."""
    metrics_timeout_s: Positive = 300.0
    fallback: Literal["hold", "replicas", "max_seen"] = "hold"
    """The replicas when metrics are missing for longer than ``metrics_timeout_s``."""
    load: LoadSettings = Field(default_factory=LoadSettings)
    correction: bool = True
    """Whether observed TTFT and ITL correct the profile."""
    history: Path | None = None
    """What forecasts learn before the first interval: a recorded trace (Mooncake JSONL, or CSV; gzip or not), as if it
    ended now; or the folder of ``wattscale archive``, with the load of the past days at its own times."""
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)

    @model_validator(mode="before")
    @classmethod
    def _default_predictor(cls, data: Any) -> Any:
        """The default predictor of the sizing mode, with the configured suffix."""
        given = data.get("predictor", "") if isinstance(data, dict) else None
        if not isinstance(given, str) or (given and not given.startswith("+")):
            return data
        base = classic_predictor() if data.get("sizing") == "classic" else DEFAULT_PREDICTOR
        return {**data, "predictor": base + given}


class WindowSettings(Block):
    """A budget for a part of the local day. ``end`` at or before ``start`` means the next day; both are ``HH:MM``."""

    start: str
    end: str
    budget_watts: NotNegative
    weekdays: tuple[Weekday, ...] = ()


class ScheduleSettings(Block):
    """Budgets over the day; outside all windows the site's budget holds. Later windows win."""

    zone: str = "UTC"
    windows: tuple[WindowSettings, ...]


class WeightSettings(Block):
    """Weights of the joint choice of counts and caps: each in watts of expected draw for one unit."""

    sla: NotNegative = 10_000.0
    """For carrying the load of one GPU."""
    energy: NotNegative = 1.0
    """For a watt of expected draw; 0: energy is free."""
    gpu: NotNegative = 100.0
    """For a GPU that serves."""
    churn: NotNegative = 100.0
    """For a GPU whose replica starts or stops."""
    priority: Annotated[float, Field(ge=1, le=MOST)] = 100.0
    """How many times the shortfall of one priority class outweighs that of the class below."""


class SiteSettings(Block):
    """One power budget. Times are real seconds."""

    budget_watts: Positive
    nodes: tuple[str, ...] = ("*",)
    host_overhead_watts_per_node: NotNegative = 0.0
    margin_watts: NotNegative = 0.0
    lease_s: Positive = 30.0
    settle_s: Positive = 2.0
    clock_skew: Annotated[float, Field(ge=0, lt=0.5)] = 0.01
    """Largest difference between the rates of two clocks."""
    flight_s: NotNegative = 1.0
    """Longest delivery time of a message that still counts as in time."""
    answer_s: Positive = 3.0
    """A node that leaves a decision unanswered for longer than this is not relied on to lower anything."""
    stale_s: Positive = 15.0
    """A node whose last telemetry is older than this gets no raise."""
    compliance_s: Positive = 10.0
    """How long after a cut charges may be above the budget before that is a violation."""
    highest_gpu_watts: Annotated[float, Field(ge=1000, le=MOST)] = 5000.0
    """More than any card of the site can draw or be limited to. A report with a higher limit is left out and its node
    named, because it would be charged to the site; a node with such cards is not charged before this is raised."""
    most_gpus_per_node: int = Field(default=64, ge=16, le=MOST_COUNT)
    """More GPUs than any node of the site has; likewise."""
    smallest_step_watts: Positive = 5.0
    fallback_watts: Positive | None = None
    smallest_budget_watts: Positive | None = None
    expected_gpus: int | None = Field(default=None, ge=1, le=MOST_COUNT)
    """Number of GPUs of the site: those that no agent has reported yet are charged as well."""
    expected_nodes: int | None = Field(default=None, ge=1, le=MOST_COUNT)
    """Number of nodes that hold them, for the host overhead."""
    covers: Literal["all_gpus", "workers"] = "all_gpus"
    """The GPUs whose limits the budget bounds. all_gpus: every GPU of the site's nodes. workers: those that the site's
    deployments hold, and those reserved for their replicas; all others are outside the promise."""
    shortage: Literal["joint", "proportional"] = "joint"
    """Where watts do not suffice. joint: counts and caps are chosen by the share of requests that stay good.
    proportional: every pool keeps ``int(n * budget / required)`` of its replicas, each counted with its highest cap."""
    weights: WeightSettings = Field(default_factory=WeightSettings)
    schedule: ScheduleSettings | None = None


class PrometheusBlock(Block):
    """A Prometheus server for all deployments that read from one."""

    url: str = ""
    bearer_token: SecretStr = SecretStr("")
    bearer_token_file: Path | None = None
    ca_file: Path | None = None
    verify_tls: bool = True
    params: dict[str, str] = Field(default_factory=dict)
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    timeout_s: Positive = 10.0
    retries: int = Field(default=2, ge=0, le=10)


class ProphetSettings(Block):
    """The Prophet predictor's parameters, with Dynamo's default."""

    window: int = Field(default=50, ge=1, le=10_000)
    """Number of newest observations that it is fitted to."""


class KalmanSettings(Block):
    """The Kalman predictor's parameters, with Dynamo's defaults."""

    q_level: Positive = 1.0
    q_trend: Positive = 0.1
    r: Positive = 10.0
    min_points: int = Field(default=5, ge=1, le=MOST_COUNT)


def _port(value: Any) -> Any:
    """``none`` is how a flag or the environment writes null."""
    return None if isinstance(value, str) and value.lower() == "none" else value


class HealthSettings(Block):
    """The HTTP server for probes, metrics and status. ``port`` 0: the system chooses; ``none`` or null: no server."""

    host: str = "127.0.0.1"
    port: Annotated[int | None, Field(ge=0, le=65535), BeforeValidator(_port)] = 9091
    live_within_s: Positive = 30.0
    """Not live when the event loop has not run for this long (real seconds)."""


LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class SteeringSettings(Block):
    """Commands from the page: who may give them, and the operator's login with which they go to the planner's bus.

    That login is used for commands alone, because a planner's own may not give them. Without one of its own it is the
    bus of everybody, without logins.
    """

    token_file: Path
    """Lines of NAME TOKEN."""
    creds_file: Path | None = None
    nkey_seed_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None
    inbox_prefix: str = Field(default="_INBOX_operator", pattern=INBOX_PREFIX)

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        given = [name for name in ("creds_file", "nkey_seed_file", "user") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both set: use one kind of credentials")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file belong together")
        return self


class DashboardSettings(Block):
    """The page of the site (`wattscale dashboard` serves the same). Read-only without ``steering``, and without a
    login: whoever reaches the address sees the site. ``port`` 0: the system chooses; ``none`` or null: no page."""

    host: str = "127.0.0.1"
    port: Annotated[int | None, Field(ge=0, le=65535), BeforeValidator(_port)] = None
    path_prefix: Annotated[str, AfterValidator(path_of)] = ""
    """Where the page begins, behind a proxy that keeps the path."""
    host_names: tuple[str, ...] = ()
    """Names under which a proxy asks for the page, where it listens on the loopback."""
    steering: SteeringSettings | None = None

    @model_validator(mode="after")
    def _tokens_stay_here(self) -> Self:
        if self.steering is not None and self.port is None:
            raise ValueError("steering is set without a port: there is no page to steer from")
        if self.steering is not None and self.host not in LOOPBACK:
            raise ValueError(
                f"steering: tokens would cross the network unencrypted to {self.host}; set host to 127.0.0.1, and put "
                "a proxy with TLS in front (host_names)"
            )
        return self


class LogSettings(Block):
    """Logs go to standard error, one JSON object a line by default."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class OtlpSettings(Block):
    """Where traces go; needs the extra ``otlp``. Empty: nowhere."""

    endpoint: str = ""


def _unquoted(value: Any) -> Any:
    """YAML takes an unquoted ``on`` or ``off`` for true or false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


class KubernetesBlock(Block):
    """Where to read which model a deployment serves, if its ``model`` is not set."""

    mode: Annotated[Literal["auto", "on", "off"], BeforeValidator(_unquoted)] = "auto"
    """auto: on inside a pod, or where a kubeconfig is named."""
    kubeconfig: Path | None = None


class LeaseSettings(Block):
    """Leadership among planners. Real seconds."""

    holder: str = ""
    """This process's name in the lease; default: host and process id."""
    ttl_s: Annotated[float, Field(ge=1.0, le=300.0)] = 10.0


class Settings(Block):
    """One planner process."""

    interval_s: Positive = 30.0
    load_time_scale: Positive = 1.0
    bus: BusSettings = Field(default_factory=BusSettings)
    lease: LeaseSettings = Field(default_factory=LeaseSettings)
    prometheus: PrometheusBlock = Field(default_factory=PrometheusBlock)
    kubernetes: KubernetesBlock = Field(default_factory=KubernetesBlock)
    kalman: KalmanSettings = Field(default_factory=KalmanSettings)
    prophet: ProphetSettings = Field(default_factory=ProphetSettings)
    tensorboard_dir: Path | None = None
    """Where to write what every tick saw, forecast and decided, as TensorBoard's event files; unset: nowhere."""
    health: HealthSettings = Field(default_factory=HealthSettings)
    dashboard: DashboardSettings = Field(default_factory=DashboardSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    otlp: OtlpSettings = Field(default_factory=OtlpSettings)
    journal: bool = True
    """Keep each tick's observation in its plan record: for replay, and for the next leader's forecasts and windows."""
    power_aware: bool = True
    """Off: replicas are planned without watts, sites are not needed and left alone, and no cap is sent. If no site is
    configured, it is off, with a warning at the start."""
    power_off: Literal["release", "keep"] = "release"
    """What ``power_aware: false`` does to caps that earlier decisions set. release: each GPU gets its default limit
    back. keep: they stay until their leases end, when agents lower them to their fallbacks."""
    provision: bool = True
    """Create and maintain the streams, and a consumer for every agent and actuator; off where another tool does."""
    sites: dict[str, SiteSettings] = Field(default_factory=dict)
    deployments: dict[str, DeploymentSettings] = Field(default_factory=dict)
