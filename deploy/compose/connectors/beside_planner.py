"""The connectors that a planner's own process runs: one for each deployment that names one, while this planner leads.

For users who start one command and expect workers to follow, as Dynamo's ``environment`` promises. A connector runs as
a task: it ends with the process, however that ends. Its failure never ends the planner: it is logged with the
connector's name, and the connector starts again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar

from pydantic import BaseModel

from agent.adapters.kubernetes.access import NoAccessError, find_access
from bus_schemas.jetstream.tasks.backoff import Backoff
from deploy.compose.settings_layers import Merged, SettingsError, Tree
from deploy.compose.settings_loader import ENVIRONMENT, validated
from deploy.compose.settings_sources import read_file
from planner.adapters.graph_model import splits
from planner.runtime.config.settings import DeploymentSettings, Settings

log = logging.getLogger("wattscale.connector")
T = TypeVar("T", bound=BaseModel)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
STEADY_S = 60.0
"""A connector that ran for this long starts again at once."""
OWN_GRAPH = "DYN_PARENT_DGD_K8S_NAME"
"""Dynamo's operator names the graph in it that the planner's pod is part of."""
NO_COMMANDS = (
    "it starts workers by command, and none is known: set connector_settings to a file with pools and their commands "
    "(agent/connectors/README.md), or leave this out where another connector scales"
)
ETCD_VARIABLES = {
    "ETCD_AUTH_USERNAME": "user",
    "ETCD_AUTH_CA": "tls_ca_file",
    "ETCD_AUTH_CLIENT_CERT": "tls_cert_file",
    "ETCD_AUTH_CLIENT_KEY": "tls_key_file",
}
"""Of Dynamo's clients; the addresses are in ETCD_ENDPOINTS, with commas between."""

REDIS_VARIABLES = {"DYN_REDIS_URL": "url", "DYN_REDIS_KEY_PREFIX": "key_prefix"}
"""Of Dynamo's proposed connector over Redis."""


@dataclass(frozen=True, slots=True)
class SideConnector:
    """``where``: what it writes to, for people. ``serve`` carries decisions out until cancelled."""

    kind: str
    deployment: str
    where: str
    serve: Callable[[], Coroutine[Any, Any, None]]

    @property
    def name(self) -> str:
        """For logs and tasks."""
        return f"connector {self.kind} of {self.deployment}"

    async def run(self) -> None:
        """Serve until cancelled, and again after every failure."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        log.info("%s: started: %s", self.name, self.where)
        while True:
            began_s = loop.time()
            try:
                await self.serve()
                why = "it ended by itself"
            except Exception as error:
                why = str(error) or repr(error)
                log.debug("%s", self.name, exc_info=True)
            if loop.time() - began_s > STEADY_S:
                backoff.reset()
            pause_s = backoff.next_s()
            log.error("%s: failed, and starts again in %.0f s: %s", self.name, pause_s, why)
            await asyncio.sleep(pause_s)


def side_connectors(settings: Settings, environ: Mapping[str, str]) -> tuple[SideConnector, ...]:
    """Those that the settings name, but for deployments that are only advised. Raises SettingsError."""
    found, problems = [], []
    for name, block in settings.deployments.items():
        try:
            if block.connector == "none":
                _unused(name, block)
            elif block.mode != "advisory":
                found.append(COMPOSED[block.connector](settings, name, environ))
        except SettingsError as error:
            problems += [f"deployments.{name}.connector: {block.connector}: {each}" for each in error.problems]
    if problems:
        raise SettingsError(problems)
    return tuple(found)


def _unused(name: str, block: DeploymentSettings) -> None:
    if block.connector_settings is not None:
        raise SettingsError([f"deployments.{name}.connector_settings is set: name the connector that reads it"])


def _virtual(settings: Settings, deployment: str, environ: Mapping[str, str]) -> SideConnector:
    from agent.connectors.connector_file import ConnectorFile
    from deploy.cli.errors import UsageError
    from deploy.compose.connectors.store_view import StoreView
    from deploy.compose.connectors.virtual_service import access_of, carry_out

    if _own_file(ConnectorFile, settings, deployment).get("store") == "redis":
        return _redis(settings, deployment, environ)
    etcd: Tree = {field: environ[name] for name, field in ETCD_VARIABLES.items() if environ.get(name)}
    if addresses := environ.get("ETCD_ENDPOINTS"):
        etcd["endpoints"] = addresses.split(",")
    block = settings.deployments[deployment]
    file = _read(ConnectorFile, settings, deployment, {"etcd": etcd, "namespace": block.namespace or ""})
    if file.direction == "from-dynamo":
        raise SettingsError(
            ["direction: from-dynamo sends commands, which a planner may not: run `wattscale connector virtual`"]
        )
    try:
        access = access_of(file.etcd)
    except UsageError as error:
        raise SettingsError([str(error)]) from error
    where = f"keys of namespace {file.served_namespace} in etcd at {', '.join(file.etcd.endpoints)}"
    return SideConnector("virtual", deployment, where, lambda: carry_out(file, access, StoreView(deployment, "etcd")))


def _redis(settings: Settings, deployment: str, environ: Mapping[str, str]) -> SideConnector:
    from agent.connectors.connector_file import ConnectorFile
    from deploy.cli.errors import UsageError
    from deploy.compose.connectors.redis_service import carry_out, redis_access_of
    from deploy.compose.connectors.store_view import StoreView

    block = settings.deployments[deployment]
    redis: Tree = {field: environ[name] for name, field in REDIS_VARIABLES.items() if environ.get(name)}
    weaker: Tree = {"redis": redis, "namespace": block.namespace or "", "model": block.model}
    file = _read(ConnectorFile, settings, deployment, weaker)
    try:
        access = redis_access_of(file.redis)
    except UsageError as error:
        raise SettingsError([str(error)]) from error
    where = f"the hash of namespace {file.served_namespace} and model {file.model} in Redis at {access.address}"
    return SideConnector("virtual", deployment, where, lambda: carry_out(file, access, StoreView(deployment, "Redis")))


def _kubernetes(settings: Settings, deployment: str, environ: Mapping[str, str]) -> SideConnector:
    from agent.connectors.kubernetes.kubernetes_file import KubernetesFile
    from deploy.compose.connectors.kubernetes_service import KubernetesView, carry_out

    if find_spec("kubernetes_asyncio") is None:
        raise SettingsError(["kubernetes-asyncio is not installed: pip install 'wattscale[kubernetes]'"])
    path = settings.kubernetes.kubeconfig
    own = _own_file(KubernetesFile, settings, deployment)
    try:
        access = find_access(own.get("kubeconfig", path), environ)
    except NoAccessError as error:
        raise SettingsError([f"{error}; set kubernetes.kubeconfig"]) from error
    weaker: Tree = {"namespace": access.namespace, **({} if path is None else {"kubeconfig": str(path)})}
    if not own.get("targets") and not own.get("graph"):
        weaker["graph"] = _graph(settings, deployment, access.namespace, environ)
    file = _read(KubernetesFile, settings, deployment, weaker)
    what = f"graph {file.graph}" if file.graph else f"targets of {', '.join(file.targets)}"
    where = f"{what} in namespace {file.namespace} at {access.server}"
    return SideConnector("kubernetes", deployment, where, lambda: carry_out(file, KubernetesView()))


def _graph(settings: Settings, deployment: str, namespace: str, environ: Mapping[str, str]) -> str:
    """The graph that a planner's pod is part of, else the one that the deployment's name says."""
    if len(settings.deployments) == 1 and environ.get(OWN_GRAPH):
        return environ[OWN_GRAPH]
    named = dict(splits(deployment, namespace)).get(namespace)
    if named:
        return named
    why = f"which graph? {deployment} is not {namespace}-GRAPH, and {OWN_GRAPH} is not set"
    raise SettingsError([f"{why}; name graph or targets in connector_settings"])


def _local(settings: Settings, deployment: str, environ: Mapping[str, str]) -> SideConnector:
    from agent.connectors.local.local_file import LocalConnectorFile
    from deploy.compose.connectors.local_service import carry_out

    if settings.deployments[deployment].connector_settings is None:
        raise SettingsError([NO_COMMANDS])
    file = _read(LocalConnectorFile, settings, deployment, {"model": settings.deployments[deployment].model})
    if file.on_exit == "drain":
        raise SettingsError(["on_exit: drain would end all workers whenever another planner leads; use keep"])
    where = f"processes of this machine, recorded in {file.state_folder}"
    return SideConnector("local", deployment, where, partial(carry_out, file))


COMPOSED: Mapping[str, Callable[[Settings, str, Mapping[str, str]], SideConnector]] = {
    "virtual": _virtual,
    "kubernetes": _kubernetes,
    "local": _local,
}


def _own_file(model: type[BaseModel], settings: Settings, deployment: str) -> Tree:
    """The connector's own settings. Of a file for several deployments, this one's part with what is common to all."""
    path = settings.deployments[deployment].connector_settings
    if path is None:
        return {}
    found = dict(read_file(model, path))
    parts = found.get("deployments")
    if not isinstance(parts, Mapping) or not parts or found.get("deployment"):
        return found
    del found["deployments"]
    if not isinstance(part := parts.get(deployment), Mapping):
        raise SettingsError([f"{path} is of {', '.join(sorted(map(str, parts)))}"])
    return {**found, **part}


def _read(model: type[T], settings: Settings, deployment: str, weaker: Tree) -> T:
    """The connector's settings: its own file over what the planner knows. Raises SettingsError."""
    own = _own_file(model, settings, deployment)
    if own.get("deployment", deployment) != deployment:
        raise SettingsError([f"{settings.deployments[deployment].connector_settings} is of {own['deployment']!r}"])
    merged = Merged()
    merged.put((), weaker, ENVIRONMENT)
    if "nats" not in own:
        merged.put(("nats",), settings.bus.model_dump(mode="json"), "bus")
    merged.put((), own, str(settings.deployments[deployment].connector_settings))
    merged.put(("deployment",), deployment, "deployments")
    return validated(model, merged).settings
