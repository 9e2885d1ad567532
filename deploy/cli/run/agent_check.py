"""`wattscale agent check`: runs the preflight checks with the agent's own settings and prints the findings."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os

from agent.adapters.kubernetes.access import NoAccessError, find_access
from agent.adapters.kubernetes.api import KubernetesApi
from agent.adapters.pod_resources.kubelet import PodResources
from agent.drivers.procfs import ProcFs
from agent.runtime.agent_file import AgentFile
from agent.runtime.preflight import (
    Finding,
    Status,
    bounded,
    check_api,
    check_driver,
    check_kubelet,
    check_processes,
    check_rights,
)
from bus_schemas.visible_text import visible
from deploy.compose.agent_service import build_driver

QUESTION_S = 15.0


def run_check(settings: AgentFile, *, as_json: bool) -> int:
    """Print all findings. Returns the exit code: 1 when a check fails."""
    findings = asyncio.run(_ask(settings))
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.status.value:>4}  {finding.name}: {visible(finding.detail)}")
            if finding.remedy:
                print(f"      -> {visible(finding.remedy)}")
    return 1 if any(finding.status is Status.FAIL for finding in findings) else 0


async def _ask(settings: AgentFile) -> list[Finding]:
    driver = build_driver(settings)
    findings = await bounded("driver", lambda: check_driver(driver, settings.call_timeout_s), QUESTION_S)
    if settings.driver == "simulated":
        findings.append(Finding("rights", Status.SKIP, "simulated GPUs need none"))
    else:
        findings.append(check_rights())
    findings += await _kubernetes(settings)
    findings += await bounded("bus", lambda: _bus(settings), QUESTION_S)
    return findings


async def _kubernetes(settings: AgentFile) -> list[Finding]:
    section = settings.kubernetes
    if section.mode == "off" or (
        section.mode == "auto" and section.kubeconfig is None and "KUBERNETES_SERVICE_HOST" not in os.environ
    ):
        return [Finding("kubernetes", Status.SKIP, "off")]
    findings = [check_processes(ProcFs(section.proc_root), section.proc_root)]
    findings.append(await check_kubelet(PodResources(section.pod_resources_socket), section.pod_resources_socket))
    try:
        access = find_access(section.kubeconfig)
    except NoAccessError as error:
        return [*findings, Finding("kubernetes access", Status.FAIL, str(error), "name a kubeconfig, or run in a pod")]
    async with KubernetesApi(access) as api:
        return findings + await bounded("kubernetes pods", lambda: check_api(api, settings.node), QUESTION_S)


async def _bus(settings: AgentFile) -> list[Finding]:
    from nats.errors import Error as NatsError
    from nats.js.errors import NotFoundError

    from bus_schemas.jetstream.connect import BusError, connect
    from bus_schemas.streams import DECISIONS
    from bus_schemas.subjects import BadNameError, power_consumer

    if settings.nats is None:
        return [Finding("bus", Status.SKIP, "no bus configured")]
    try:
        durable = power_consumer(settings.node)
        bus = await connect(settings.nats)
    except BadNameError as error:
        return [Finding("bus", Status.FAIL, str(error), "use the node's Kubernetes name")]
    except BusError as error:
        return [
            Finding("bus", Status.FAIL, str(error), "is the server up, and do the credentials belong to this node?")
        ]
    findings = [Finding("bus", Status.OK, f"connected to {', '.join(settings.nats.servers)}")]
    try:
        await bus.js.consumer_info(DECISIONS, durable)
        findings.append(Finding("bus consumer", Status.OK, f"{durable} exists"))
    except NotFoundError:
        remedy = "the planner creates it after this node's first telemetry: is a planner running?"
        findings.append(Finding("bus consumer", Status.WARN, f"no consumer {durable} on {DECISIONS}", remedy))
    except (NatsError, TimeoutError) as error:
        remedy = "the agent's role must be allowed to query its own consumer"
        findings.append(Finding("bus consumer", Status.FAIL, f"{str(error) or type(error).__name__}", remedy))
    finally:
        await bus.close()
    return findings
