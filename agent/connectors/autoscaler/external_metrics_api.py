"""The external metrics API for HPA: TLS, the front proxy's certificate, its headers, the API server's consent, a value.

In this order, so that nobody learns anything without the certificate. What the front proxy's authority signs and what
our own certificate is are read again from time to time, because both are renewed.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp.web_request import BaseRequest

from agent.adapters.kubernetes.api import ApiError, KubernetesApi
from agent.connectors.autoscaler.metric_listener import MetricListener
from agent.connectors.autoscaler.newest_decision import NewestDecision
from agent.core.scaling.autoscaler.external_metrics import (
    MetricRefusedError,
    WantedPool,
    asked_metric,
    discovery,
    may_select,
    metric_values,
)
from agent.core.scaling.autoscaler.front_proxy import (
    BadFrontProxyError,
    FrontProxy,
    Identity,
    access_review,
    common_name,
    front_proxy_of,
    identified,
)
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import run_together

log = logging.getLogger(__name__)
TRUST = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


class ExternalMetricsApi:
    """Run `run`. Listens only once the front proxy is known: without it, nobody could be told apart."""

    def __init__(
        self,
        api: KubernetesApi,
        decisions: Mapping[str, NewestDecision],
        files: tuple[Path, Path],
        address: tuple[str, int],
        reload_s: float,
    ) -> None:
        self._api = api
        self._decisions = decisions
        self._cert, self._key = files
        self._reload_s = reload_s
        self._proxy: FrontProxy | None = None
        self._known: tuple[str, bytes, bytes] | None = None
        self._secured = asyncio.Event()
        self.trouble = "the front proxy's authority has not been read yet"
        """Why nothing can be answered; empty once it listens, also where the authority cannot be read again."""
        self.listener = MetricListener(self._answer, "the external metrics API", *address)

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError when the address cannot be bound."""
        await run_together({"trust": self._keep_trust(), "listener": self._listen()})

    async def _listen(self) -> None:
        await self._secured.wait()
        await self.listener.run()

    async def _keep_trust(self) -> None:
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            pause_s = self._reload_s
            try:
                await self._renew()
                if not self.listener.listening.is_set():
                    self.trouble = "the external metrics API does not listen yet"
                    await self.listener.listening.wait()
                self.trouble = ""
            except (ApiError, BadFrontProxyError, OSError, ValueError) as error:
                # What was trusted until now still is: an API server that is away for a moment changes nothing.
                reason = f"the front proxy's authority: {error}"
                log.warning("%s", reason)
                if self._proxy is None:
                    self.trouble = reason
                pause_s = backoff.next_s()
            await asyncio.sleep(pause_s)

    async def _renew(self) -> None:
        proxy = front_proxy_of(await self._api.get(TRUST))
        known = await asyncio.to_thread(lambda: (proxy.ca, self._cert.read_bytes(), self._key.read_bytes()))
        if known != self._known:
            self.listener.secure(await asyncio.to_thread(_tls, self._cert, self._key, proxy.ca))
            self._known = known
        # After the listener's settings: until then the old names are asked of the old authority's certificates.
        self._proxy = proxy
        self._secured.set()

    async def _answer(self, request: BaseRequest) -> Mapping[str, Any]:
        proxy = self._proxy
        if proxy is None:
            raise MetricRefusedError(503, "ServiceUnavailable", self.trouble)
        certificate = None if request.transport is None else request.transport.get_extra_info("peercert")
        who = identified(proxy, common_name(certificate), request.headers.items())
        asked = asked_metric(request.path)
        await self._permit(who, *(asked or ("", "")))
        if asked is None:
            return discovery(pool.pool for pool in self._known_pools())
        namespace, metric = asked
        selector = request.query.get("labelSelector", "")
        return metric_values(self._wanted(namespace, selector), namespace, metric, selector)

    async def _permit(self, who: Identity, namespace: str, metric: str) -> None:
        try:
            review = await self._api.post(REVIEWS, access_review(who, namespace, metric))
        except ApiError as error:
            log.warning("the API server does not answer a SubjectAccessReview: %s", error)
            raise MetricRefusedError(503, "ServiceUnavailable", "access cannot be reviewed now") from error
        status = review.get("status") or {}
        if status.get("allowed") is not True or status.get("denied") is True:
            what = f"list {metric} in namespace {namespace}" if metric else "read the list of metrics"
            raise MetricRefusedError(403, "Forbidden", f"user {who.user!r} cannot {what}")

    def _known_pools(self) -> list[WantedPool]:
        """Those of the deployments whose counts are known: the discovery must not fail with one of them."""
        found: list[WantedPool] = []
        for one in self._decisions.values():
            if not one.missing:
                found += one.counts()
        return found

    def _wanted(self, namespace: str, selector: str) -> list[WantedPool]:
        """All counts of the deployments of a namespace that the selector may mean.

        Raises MetricRefusedError with 503 where one of these has none, and for a selector that cannot be read.
        """
        return [
            count
            for one in self._decisions.values()
            if one.namespace == namespace and may_select(selector, one.deployment)
            for count in one.counts()
        ]


def _tls(cert: Path, key: Path, authority: str) -> ssl.SSLContext:
    """Raises OSError (ssl.SSLError is one). A client without a certificate is answered 401 and not cut off."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(cert, key)
    made.load_verify_locations(cadata=authority)
    made.verify_mode = ssl.CERT_OPTIONAL
    return made
