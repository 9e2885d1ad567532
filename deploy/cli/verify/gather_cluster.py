"""Reads from Kubernetes, and from this node, what `wattscale verify` judges. Reads only: it sets no limit."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agent.adapters.kubernetes.access import NoAccessError, find_access
from agent.adapters.kubernetes.api import ApiError, KubernetesApi
from agent.adapters.kubernetes.pages import pages
from agent.adapters.kubernetes.pods import read_pod
from agent.core.pod_limits import ANNOTATION, watts_of
from agent.core.scaling.kubernetes.needed_rights import Right
from agent.runtime.preflight import Finding, bounded, check_api, check_driver, check_rights
from deploy.cli.verify.facts import AnnotatedPod, ClusterFacts, RightsFacts, Unknown

if TYPE_CHECKING:
    from agent.connectors.kubernetes.kubernetes_file import KubernetesFile
    from agent.runtime.agent_file import AgentFile

T = TypeVar("T")
GPUS = "nvidia.com/gpu"
ANSWER_S = 10.0


async def cluster_facts(kubeconfig: Path | None) -> ClusterFacts | Unknown:
    """What the API server shows of GPU nodes and of pods with a limit."""
    try:
        access = find_access(kubeconfig, os.environ)
    except NoAccessError as error:
        return Unknown(f"no Kubernetes API is at hand: {error}")
    async with KubernetesApi(access, timeout_s=ANSWER_S) as api:
        nodes = await _picked(api, "/api/v1/nodes", _gpu_node)
        pods = await _picked(api, "/api/v1/pods", _annotated)
    return ClusterFacts(
        nodes if isinstance(nodes, Unknown) else tuple(sorted(nodes)),
        pods if isinstance(pods, Unknown) else tuple(pods),
    )


async def _picked(api: KubernetesApi, path: str, pick: Callable[[Mapping[str, Any]], T | None]) -> list[T] | Unknown:
    """What ``pick`` makes of a collection's objects, read page by page; only that is kept."""
    found: list[T] = []
    try:
        async for page in pages(api, path):
            found += [one for one in map(pick, page.get("items") or ()) if one is not None]
    except ApiError as error:
        return Unknown(f"{path} of the Kubernetes API: {error}")
    return found


def _gpu_node(node: Mapping[str, Any]) -> str | None:
    """The name of a node that has GPUs."""
    if str(node.get("status", {}).get("allocatable", {}).get(GPUS, "0")) == "0":
        return None
    return str(node.get("metadata", {}).get("name", ""))


def _annotated(item: Mapping[str, Any]) -> AnnotatedPod | None:
    """A pod that runs and has a limit."""
    pod = read_pod(item)
    if pod.finished or ANNOTATION not in pod.annotations:
        return None
    where = f"{pod.ref.namespace}/{pod.ref.name}"
    try:
        return AnnotatedPod(where, watts_of(pod))
    except ValueError as error:
        return AnnotatedPod(where, None, str(error))


async def rights_facts(
    connector: KubernetesFile | None, agent: AgentFile | None, kubeconfig: Path | None
) -> RightsFacts | Unknown:
    """The rights that connector and agent lack, asked as they ask themselves at their start.

    Each is asked with the account of its own settings, else with that of ``kubeconfig``.
    """
    if connector is None and (agent is None or not _uses_kubernetes(agent)):
        return Unknown("no settings of a Kubernetes connector or of an agent in a cluster are given")
    facts = RightsFacts()
    if connector is not None:
        facts = await _connector_rights(connector, connector.kubeconfig or kubeconfig)
    if agent is not None and _uses_kubernetes(agent):
        try:
            access = find_access(agent.kubernetes.kubeconfig or kubeconfig)
        except NoAccessError as error:
            return RightsFacts(facts.asked, facts.missing, trouble=str(error))
        async with KubernetesApi(access, timeout_s=ANSWER_S) as api:
            found = await bounded("kubernetes pods", lambda: check_api(api, agent.node), ANSWER_S)
        facts = RightsFacts(facts.asked + 1, facts.missing, tuple(found), facts.trouble)
    return facts


def _uses_kubernetes(agent: AgentFile) -> bool:
    section = agent.kubernetes
    named = section.kubeconfig is not None or "KUBERNETES_SERVICE_HOST" in os.environ
    return section.mode == "on" or (section.mode == "auto" and named)


async def _connector_rights(settings: KubernetesFile, kubeconfig: Path | None) -> RightsFacts:
    from agent.connectors.kubernetes.cluster_client import ClusterClient, NoClusterError
    from agent.connectors.kubernetes.shared_watches import SharedWatches

    rights: dict[Right, None] = {}
    try:
        async with await ClusterClient.open(kubeconfig) as cluster:
            shared = SharedWatches(
                cluster, settings.watched(), annotate=settings.annotate, restart=settings.restart_graphs
            )
            watches = shared.watches.values()
            rights = dict.fromkeys(right for watch in watches for right in watch.needed_rights)
            missing = [right for right in rights if not await cluster.allowed(right)]
    except (NoClusterError, ApiError) as error:
        return RightsFacts(len(rights), trouble=f"the connector's account: {error}")
    return RightsFacts(len(rights), tuple(missing))


async def hardware_facts(agent: AgentFile | None) -> tuple[Finding, ...] | Unknown:
    """What the agent's own check finds on this node: driver, each GPU, and the right to set limits."""
    from agent.runtime.preflight import Status
    from deploy.compose.agent_service import build_driver

    if agent is None:
        return Unknown("no agent settings of this node are given (--agent-settings)")
    driver = build_driver(agent)
    found = await bounded("driver", lambda: check_driver(driver, agent.call_timeout_s), 3 * ANSWER_S)
    simulated = Finding("rights", Status.SKIP, "simulated GPUs need none")
    return (*found, simulated if agent.driver == "simulated" else check_rights())
