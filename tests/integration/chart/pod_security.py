"""Kubernetes' PodSecurity level `restricted`, and a read-only root besides."""

from __future__ import annotations

from tests.integration.chart.rendered import Manifest

FREE = {"configMap", "emptyDir", "secret", "projected", "persistentVolumeClaim", "csi", "downwardAPI", "ephemeral"}
"""Kinds of volumes that PodSecurity `restricted` allows."""


def breaches(pod: Manifest) -> list[str]:
    """What PodSecurity `restricted` refuses in a pod, a line each."""
    found = [name for name in ("hostPID", "hostNetwork", "hostIPC") if pod.get(name)]
    found += [f"volume {one['name']}" for one in pod.get("volumes", []) if not set(one) & FREE]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container.get("securityContext", {})
        wanted = {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
            "readOnlyRootFilesystem": True,
        }
        found += [f"{container['name']}: {name}" for name, value in wanted.items() if context.get(name) != value]
        found += [f"{container['name']}: runs as root" for one in (context.get("runAsUser"),) if one == 0]
        found += [f"{container['name']}: hostPort" for port in container.get("ports", []) if "hostPort" in port]
    return found
