"""Who asks, when the API server passes a request on: its front proxy's certificate first, then its headers. Pure.

The headers are believed only from a client whose certificate the front proxy's authority signed and whose name is
allowed. Everybody can send headers: without that certificate they mean nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from agent.core.scaling.autoscaler.external_metrics import GROUP, ROOT, VERSION, MetricRefusedError

_ANONYMOUS, _AUTHENTICATED, _UNAUTHENTICATED = "system:anonymous", "system:authenticated", "system:unauthenticated"


class BadFrontProxyError(ValueError):
    """The ConfigMap does not name a front proxy that could be trusted."""


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """What ``kube-system/extension-apiserver-authentication`` holds. ``allowed_names`` empty: any name."""

    ca: str
    allowed_names: tuple[str, ...] = ()
    user_headers: tuple[str, ...] = ("X-Remote-User",)
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    extra_prefixes: tuple[str, ...] = ("X-Remote-Extra-",)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, as the API server says."""

    user: str
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def front_proxy_of(config_map: Mapping[str, Any]) -> FrontProxy:
    """The front proxy of a cluster. Raises BadFrontProxyError."""
    data = config_map.get("data") or {}
    ca = str(data.get("requestheader-client-ca-file") or "").strip()
    if not ca:
        raise BadFrontProxyError("requestheader-client-ca-file is empty: the API server has no front proxy")
    users = _names(data, "requestheader-username-headers")
    if not users:
        raise BadFrontProxyError("requestheader-username-headers is empty: no header names the user")
    return FrontProxy(
        ca,
        _names(data, "requestheader-allowed-names"),
        users,
        _names(data, "requestheader-group-headers"),
        _names(data, "requestheader-extra-headers-prefix"),
    )


def _names(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    try:
        found = json.loads(data.get(key) or "[]")
    except (TypeError, ValueError) as error:
        raise BadFrontProxyError(f"{key} is not a JSON list") from error
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise BadFrontProxyError(f"{key} is not a JSON list of names")
    return tuple(found)


def common_name(certificate: Mapping[str, Any] | None) -> str | None:
    """The common name of a verified client certificate as `ssl` gives it; None without one."""
    for part in (certificate or {}).get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)
    return "" if certificate else None


def identified(proxy: FrontProxy, client_name: str | None, headers: Iterable[tuple[str, str]]) -> Identity:
    """Who asks. ``client_name``: the common name of the certificate that was verified against ``proxy.ca``; None: none.

    Raises MetricRefusedError with 401.
    """
    if client_name is None:
        message = "a client certificate of the API server's front proxy is needed; headers alone name no user"
        raise MetricRefusedError(401, "Unauthorized", message)
    if proxy.allowed_names and client_name not in proxy.allowed_names:
        message = f"the client certificate of {client_name!r} is not one of the front proxy's allowed names"
        raise MetricRefusedError(401, "Unauthorized", message)
    pairs = [(name.lower(), value) for name, value in headers]
    user = next((value for one in proxy.user_headers for name, value in pairs if name == one.lower() and value), "")
    if not user:
        raise MetricRefusedError(401, "Unauthorized", f"none of {', '.join(proxy.user_headers)} names a user")
    groups = [value for one in proxy.group_headers for name, value in pairs if name == one.lower() and value]
    if user != _ANONYMOUS and not {_AUTHENTICATED, _UNAUTHENTICATED} & set(groups):
        groups.append(_AUTHENTICATED)
    extra: dict[str, tuple[str, ...]] = {}
    for prefix in proxy.extra_prefixes:
        for name, value in pairs:
            if name.startswith(prefix.lower()):
                key = unquote(name[len(prefix) :])
                extra[key] = (*extra.get(key, ()), value)
    return Identity(user, tuple(groups), extra)


def access_review(who: Identity, namespace: str, metric: str) -> dict[str, Any]:
    """The SubjectAccessReview to ask: may ``who`` list the metric? ``metric`` empty: may it read the discovery?

    The path of a metric has no object's name, so the verb is ``list``.
    """
    spec: dict[str, Any] = {
        "user": who.user,
        "groups": list(who.groups),
        "extra": {key: list(values) for key, values in who.extra.items()},
    }
    if metric:
        about = {"namespace": namespace, "verb": "list", "group": GROUP, "version": VERSION, "resource": metric}
        spec["resourceAttributes"] = about
    else:
        spec["nonResourceAttributes"] = {"path": ROOT, "verb": "get"}
    return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
