"""The objects that the evaluation adds beside the chart: namespace, serving graph, token, and what verifies. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Manifest = dict[str, Any]
NAMESPACE = "wattscale-try"
RELEASE = "wattscale"
TOKEN_SECRET, TOKEN = "hf-token-secret", "HF_TOKEN"
"""A Secret and its key, as Dynamo's examples name them."""
GRAPH, MODEL, PORT = "chat", "demo", 8000
SITE, POOL = "try", "aggregated"
"""Of values/chat.yaml."""
PINNED, CUT_WATTS = 2, 1200
"""What the clean test orders: one replica more, and four GPUs of at least 200 W within a smaller budget."""
BUS = f"nats://{RELEASE}-nats:4222"
PIN = ("deployment", "pin", GRAPH, f"{POOL}={PINNED}")
CUT = ("budget", "set", str(CUT_WATTS), "--site", SITE, "--wait", "--wait-s", "60")
RELEASES = (("deployment", "release", GRAPH), ("budget", "release", "--site", SITE))
VERIFY = "wattscale-verify"
VERIFY_WITHIN_S = 300
DECISIONS_WITHIN_S = 180
"""Until a planner has readings of requests, and its decision was carried out."""
TOKEN_PLACES = frozenset({"envFromSecret", "name"})
WORKLOADS = {"Deployment": "deployment", "StatefulSet": "statefulset", "DaemonSet": "daemonset"}
GRAPH_KIND = "DynamoGraphDeployment"


def namespace() -> Manifest:
    """Of everything but Prometheus."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def token_secret(token: str) -> Manifest:
    """Given to kubectl on its standard input, never as an argument."""
    metadata = {"name": TOKEN_SECRET, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {TOKEN: token}}


def needs_token(manifests: Sequence[Manifest]) -> bool:
    """Whether some of these read the Secret with the token."""
    return any(_names_token(manifest, "") for manifest in manifests)


def _names_token(value: Any, key: str) -> bool:
    if isinstance(value, dict):
        return any(_names_token(one, name) for name, one in value.items())
    if isinstance(value, list):
        return any(_names_token(one, key) for one in value)
    return key in TOKEN_PLACES and value == TOKEN_SECRET


def waits(manifests: Sequence[Manifest], within_s: int) -> Iterator[list[str]]:
    """Arguments of kubectl that wait for each workload of a graph."""
    for manifest in manifests:
        kind, name = str(manifest.get("kind")), str(manifest.get("metadata", {}).get("name"))
        if kind in WORKLOADS:
            yield ["rollout", "status", f"{WORKLOADS[kind]}/{name}", f"--timeout={within_s}s"]
        elif kind == GRAPH_KIND:
            yield ["wait", "--for=condition=Ready", f"dynamographdeployment/{name}", f"--timeout={within_s}s"]


def chat_graph(image: str) -> list[Manifest]:
    """Our small HTTP engine behind a Service. By Dynamo's labels on its pods the chart's PodMonitor finds them."""
    own = {"app": GRAPH}
    labels = {
        **own,
        "nvidia.com/dynamo-namespace": GRAPH,
        "nvidia.com/dynamo-component": "ChatWorker",
        "nvidia.com/dynamo-component-type": "worker",
        "nvidia.com/metrics-enabled": "true",
    }
    container = {
        "name": "engine",
        "image": image,
        "args": ["engine", "--host", "0.0.0.0", "--port", str(PORT), "--model", MODEL],  # noqa: S104  # in its own pod
        "ports": [{"name": "system", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "system"}, "periodSeconds": 2},
        "securityContext": _restricted(),
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    }
    # Without a count: one that is applied again would undo what was decided since.
    spec = {
        "selector": {"matchLabels": own},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], **_pod()}},
    }
    service = {"selector": own, "ports": [{"name": "http", "port": PORT, "targetPort": "system"}]}
    return [
        _object("apps/v1", "Deployment", GRAPH, spec=spec),
        _object("v1", "Service", GRAPH, spec=service),
    ]


def verifier(image: str) -> list[Manifest]:
    """A Job that runs `wattscale verify` with the planner's settings, and its rights: it lists nodes and pods."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": VERIFY}
    subject = {"kind": "ServiceAccount", "name": VERIFY, "namespace": NAMESPACE}
    rules = [{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["list"]}]
    settings = {"name": "settings", "mountPath": "/etc/wattscale", "readOnly": True}
    container = {
        "name": "verify",
        "image": image,
        "args": ["verify", "--config", "/etc/wattscale/planner.yaml", "--wait", str(DECISIONS_WITHIN_S)],
        "securityContext": _restricted(),
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [settings],
    }
    pod = {
        "serviceAccountName": VERIFY,
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "settings", "configMap": {"name": f"{RELEASE}-planner"}}],
        **_pod(),
    }
    # The bus admits the chart's own pods.
    labels = {"app.kubernetes.io/name": "wattscale", "app.kubernetes.io/instance": RELEASE}
    job = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": VERIFY_WITHIN_S,
        "template": {"metadata": {"labels": {**labels, "app.kubernetes.io/component": "verify"}}, "spec": pod},
    }
    group = "rbac.authorization.k8s.io/v1"
    return [
        _object("v1", "ServiceAccount", VERIFY),
        {"apiVersion": group, "kind": "ClusterRole", "metadata": {"name": VERIFY}, "rules": rules},
        {
            "apiVersion": group,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": VERIFY},
            "roleRef": role,
            "subjects": [subject],
        },
        _object("batch/v1", "Job", VERIFY, spec=job),
    ]


def _object(version: str, kind: str, name: str, **rest: Any) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, **rest}


def _pod() -> Manifest:
    user = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    return {"securityContext": user}


def _restricted() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
