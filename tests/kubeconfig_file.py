"""A kubeconfig for one account of one API server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def kubeconfig(file: Path, server: str, token: str, namespace: str = "") -> Path:
    """Write it into ``file``. The certificate of a server with one is not verified: it is a cluster for tests."""
    cluster: dict[str, Any] = {"server": server}
    if server.startswith("https"):
        cluster["insecure-skip-tls-verify"] = True
    context = {"cluster": "k", "user": "u", **({"namespace": namespace} if namespace else {})}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": context}],
        "clusters": [{"name": "k", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    file.write_text(json.dumps(document))
    file.chmod(0o600)
    return file
