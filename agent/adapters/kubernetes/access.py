"""How to reach a Kubernetes API server: from inside a pod by its service account, from outside by a kubeconfig file.

Owns addresses, certificates and tokens. Tokens in files are read again when they change, for the kubelet renews them.
Written here because the generated client library holds 36 to 38 MB of models, of which a node agent needs one.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bus_schemas.regular_files import SECRET_BYTES, read_regular, read_secret

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class NoAccessError(Exception):
    """No way to reach the API server was found; the message lists what was tried."""


@dataclass(frozen=True, slots=True)
class Access:
    """The address of an API server and the credentials for it."""

    server: str
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    tls: ssl.SSLContext | None = None
    namespace: str = "default"

    def headers(self) -> dict[str, str]:
        """The authorisation of one request. A token file is read each time: it is small and changes hourly."""
        token = read_secret(self.token_file) if self.token_file is not None else self.token
        return {"Authorization": f"Bearer {token}"} if token else {}


def find_access(kubeconfig: Path | None = None, environment: Mapping[str, str] = os.environ) -> Access:
    """The kubeconfig that is named, else the pod's service account, else ``KUBECONFIG``. Raises NoAccessError."""
    if kubeconfig is not None:
        return from_kubeconfig(kubeconfig)
    if "KUBERNETES_SERVICE_HOST" in environment:
        return from_service_account(environment)
    named = environment.get("KUBECONFIG", "").split(os.pathsep)[0]
    if named:
        return from_kubeconfig(Path(named))
    raise NoAccessError("not in a pod (KUBERNETES_SERVICE_HOST is not set) and no kubeconfig named")


def from_service_account(environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Access:
    """As a pod: address from the environment, token and authority from the mounted folder."""
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not (folder / "token").is_file():
        raise NoAccessError(f"no service account token at {folder / 'token'}: set automountServiceAccountToken")
    namespace = read_secret(folder / "namespace") if (folder / "namespace").is_file() else "default"
    shown = f"[{host}]" if ":" in host else host
    tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    return Access(f"https://{shown}:{port}", token_file=folder / "token", tls=tls, namespace=namespace)


def from_kubeconfig(path: Path) -> Access:
    """The current context of a kubeconfig, YAML or JSON. Raises NoAccessError, also for one that needs a plugin."""
    try:
        document = _parsed(read_regular(path, SECRET_BYTES))
        context = _named(document, "contexts", "context", document["current-context"])
        cluster = _named(document, "clusters", "cluster", context["cluster"])
        user = _named(document, "users", "user", context["user"])
        server = str(cluster["server"]).rstrip("/")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoAccessError(f"kubeconfig {path}: {type(error).__name__}: {error}") from error
    if "exec" in user or "auth-provider" in user:
        raise NoAccessError(
            f"kubeconfig {path}: its user needs a plugin; make one with a token or a client certificate"
        )
    token_file = path.parent / user["tokenFile"] if "tokenFile" in user else None
    return Access(
        server=server,
        token=str(user.get("token", "")),
        token_file=token_file,
        tls=_tls(path, cluster, user),
        namespace=str(context.get("namespace", "default")),
    )


def _parsed(content: bytes) -> Any:
    """Raises ValueError. JSON is tried first: the YAML library stays in memory with its 0.8 MB once it is loaded."""
    try:
        return json.loads(content)
    except ValueError:
        import yaml

        try:
            return yaml.safe_load(content)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error


def _named(document: Mapping[str, Any], kind: str, key: str, name: str) -> Mapping[str, Any]:
    for item in document[kind]:
        if item["name"] == name:
            found: Mapping[str, Any] = item[key]
            return found
    raise KeyError(f"no {key} named {name!r}")


def _tls(path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext | None:
    if not str(cluster["server"]).startswith("https"):
        return None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        authority = _file(path, cluster, "certificate-authority", folder)
        context = ssl.create_default_context(cafile=str(authority) if authority else None)
        if cluster.get("insecure-skip-tls-verify"):
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        certificate, key = _file(path, user, "client-certificate", folder), _file(path, user, "client-key", folder)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    return context


def _file(path: Path, section: Mapping[str, Any], name: str, folder: Path) -> Path | None:
    """A certificate or key that is named as a file, or given as base64 in ``<name>-data``."""
    if f"{name}-data" in section:
        target = folder / name
        target.touch(mode=0o600)
        try:
            target.write_bytes(base64.b64decode(section[f"{name}-data"], validate=True))
        except (binascii.Error, ValueError) as error:
            raise NoAccessError(f"kubeconfig {path}: {name}-data is not base64") from error
        return target
    return path.parent / section[name] if name in section else None
