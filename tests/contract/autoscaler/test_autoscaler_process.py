"""KEDA and HPA ask a real process of the connector: real bus, real TLS, a double of the API server."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from agent.connectors.bus_claims import claimed
from agent.core.scaling.claims import Holder
from bus_schemas import v1
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages
from tests.contract.autoscaler.autoscaler_site import (
    DEPLOYMENT,
    HPA_USER,
    NAMESPACE,
    Answer,
    AutoscalerSite,
    TrustedCluster,
    autoscaler_site,
)
from tests.contract.bus import scaling, until
from tests.contract.roles.certificates import Authority, Pair
from tests.contract.roles.test_connector_claims import roled
from tests.doubles.kubernetes import KubernetesDouble
from tests.unit.agent.connectors.test_autoscaler_manifests import made_by_keda, one_of

DECODE = f"/v1/deployments/{DEPLOYMENT}/pools/decode"
ROOT = "/apis/external.metrics.k8s.io/v1beta1"
METRIC = f"{ROOT}/namespaces/{NAMESPACE}/wattscale-decode?labelSelector=deployment%3D{DEPLOYMENT}"
AS_HPA = {"X-Remote-User": HPA_USER, "X-Remote-Group": "system:authenticated"}
AS_MASTER = {"X-Remote-User": "admin", "X-Remote-Group": "system:masters"}


async def keda_gets(site: AutoscalerSite, status: int, replicas: int | None) -> dict[str, Any]:
    """Wait until KEDA is answered so; None: an answer without a count."""

    async def found() -> dict[str, Any] | None:
        code, body = await site.asked_by_keda(DECODE)
        return body if code == status and body.get("replicas") == replicas else None

    body = await until(found, f"{status} with {replicas} replicas")
    assert body is not None
    return body


async def test_keda_gets_the_newest_count_and_an_error_where_there_is_none(tmp_path: Path) -> None:
    async with autoscaler_site(tmp_path) as site:
        settings = {"max_age_s": 2, "metrics_api": {"host": "127.0.0.1", "port": site.keda}}
        nowhere = {"KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
        async with site.connector(settings, nowhere) as process:
            refused = await keda_gets(site, 503, None)
            assert "replicas" not in refused
            await until(lambda: _not_ready(site, "there is no decision yet"), "the reason on /readyz")
            await site.decide(0, 21)
            body = await keda_gets(site, 200, 21)
            assert (body["deployment"], body["pool"], body["decision_id"]) == (DEPLOYMENT, "decode", 0)
            await site.ready()
            await site.decide(1, 0)
            await keda_gets(site, 200, 0)
            await site.decide(2, 22)
            await keda_gets(site, 200, 22)

            async def no_such_pool() -> bool:
                return (await site.asked_by_keda(f"/v1/deployments/{DEPLOYMENT}/pools/other"))[0] == 404

            await until(no_such_pool, "the answer for a pool that the decision does not name")
            assert (await site.asked_by_keda("/v1/deployments/other/pools/decode"))[0] == 404
            assert (await site.asked_by_keda(DECODE, "POST"))[0] == 405

            async def listed() -> bool:
                status, found = await site.asked_by_keda("/v1/deployments")
                return (status, found["deployments"][DEPLOYMENT].get("pools")) == (200, {"decode": 22, "prefill": 1})

            await until(listed, "the list of all counts")
            slash = scaling(DEPLOYMENT, 3, decode=22)
            pools = {**slash.pools, "decode/70b": v1.PoolTarget(role="decode", replicas=4)}
            await publish(site.bus, site.subject, slash.model_copy(update={"pools": pools}), "decision-3")

            async def found_with_a_slash() -> bool:
                path = f"/v1/deployments/{DEPLOYMENT}/pools/decode%2F70b"
                status, body = await site.asked_by_keda(path)
                return (status, body.get("pool"), body.get("replicas")) == (200, "decode/70b", 4)

            await until(found_with_a_slash, "the count of a pool with a slash in its name")
            os.kill(site.nats_pid, signal.SIGSTOP)
            try:
                refused = await keda_gets(site, 503, None)
                assert "replicas" not in refused
                _, metrics = await site.page("/metrics")
                assert f'wattscale_connector_counts_known{{deployment="{DEPLOYMENT}"}} 0.0' in metrics
                assert "wattscale_connector_wanted_replicas{" not in metrics
            finally:
                os.kill(site.nats_pid, signal.SIGCONT)
            await keda_gets(site, 200, 22)
            assert await all_messages(site.bus, site.bus.subjects.ack_scaling(DEPLOYMENT)) == []
            assert process.returncode is None


async def _not_ready(site: AutoscalerSite, why: str) -> bool:
    status, text = await site.page("/readyz")
    return status == 503 and why in text


async def test_hpa_is_answered_by_certificate_header_and_access_review_in_this_order(tmp_path: Path) -> None:
    async with autoscaler_site(tmp_path) as site, KubernetesDouble() as double:
        cluster = TrustedCluster(double, tmp_path)
        await site.decide(0, 21)
        async with site.connector(await _external(site, cluster)):
            # Nothing listens before the front proxy is known: whom could it believe?
            await until(lambda: _not_ready(site, "the front proxy's authority"), "the reason on /readyz")
            assert (await _ask(site, cluster, cluster.proxy, AS_HPA))[0] == 0
            await cluster.trust(cluster.front)
            await site.ready()

            status, found = await _ask(site, cluster, cluster.proxy, AS_HPA)
            assert status == 200
            assert [one["value"] for one in found["items"]] == ["21"]
            status, listed = await _ask(site, cluster, cluster.proxy, AS_MASTER, ROOT)
            assert status == 200
            assert {one["name"] for one in listed["resources"]} == {"wattscale-decode", "wattscale-prefill"}

            for path in (METRIC, ROOT):
                assert (await _ask(site, cluster, None, AS_MASTER, path))[0] == 401
                other_name = cluster.front.issue("somebody")
                assert (await _ask(site, cluster, other_name, AS_MASTER, path))[0] == 401
                stranger = Authority(tmp_path / "stranger").issue("front-proxy-client")
                assert (await _ask(site, cluster, stranger, AS_MASTER, path))[0] == 0
                assert (await _ask(site, cluster, cluster.proxy, {}, path))[0] == 401
            assert (await _ask(site, cluster, cluster.proxy, {"X-Remote-User": "eve"}))[0] == 403

            before = len(double.requests)
            assert (await _ask(site, cluster, None, AS_HPA))[0] == 401
            asked = [path for _, path in double.requests[before:]]
            assert not any("subjectaccessreviews" in path for path in asked), (
                "the API server was asked about a stranger"
            )

            double.rights = {}  # It refuses everybody, so a review cannot be had: that is not a yes.
            assert (await _ask(site, cluster, cluster.proxy, AS_HPA))[0] == 503
            double.rights = None
            assert (await _ask(site, cluster, cluster.proxy, AS_HPA))[0] == 200


async def test_a_deployment_without_a_decision_hides_no_other_of_its_namespace(tmp_path: Path) -> None:
    async with autoscaler_site(tmp_path) as site, KubernetesDouble() as double:
        cluster = TrustedCluster(double, tmp_path)
        await site.decide(0, 21)
        await cluster.trust(cluster.front)
        served = {name: {"namespace": NAMESPACE} for name in (DEPLOYMENT, "undecided")}
        settings = {"deployment": "", "namespace": "", "deployments": served, **await _external(site, cluster)}
        async with site.connector(settings):

            async def answered() -> bool:
                status, found = await _ask(site, cluster, cluster.proxy, AS_HPA)
                return status == 200 and [one["value"] for one in found["items"]] == ["21"]

            await until(answered, "the count that the selector names")
            for path in (METRIC.partition("?")[0], METRIC.replace(DEPLOYMENT, "undecided")):
                assert (await _ask(site, cluster, cluster.proxy, AS_HPA, path))[0] == 503


async def test_the_front_proxys_authority_is_read_again(tmp_path: Path) -> None:
    async with autoscaler_site(tmp_path) as site, KubernetesDouble() as double:
        cluster = TrustedCluster(double, tmp_path)
        await site.decide(0, 21)
        await cluster.trust(cluster.front)
        async with site.connector(await _external(site, cluster)):
            await site.ready()
            assert (await _ask(site, cluster, cluster.proxy, AS_HPA))[0] == 200
            following = Authority(tmp_path / "following", "following")
            renewed = following.issue("front-proxy-client")
            await cluster.trust(following)

            async def believed() -> bool:
                return (await _ask(site, cluster, renewed, AS_HPA))[0] == 200

            await until(believed, "the next authority to be believed")
            assert (await _ask(site, cluster, cluster.proxy, AS_HPA))[0] == 0


async def test_an_autoscaler_without_the_field_is_named_in_log_pages_status_and_verify(tmp_path: Path) -> None:
    async with autoscaler_site(tmp_path) as site, KubernetesDouble() as double:
        cluster = TrustedCluster(double, tmp_path)
        await site.decide(0, 21)
        scaled_object = one_of("ScaledObject", "llama-decode")
        await double.put("keda.sh", "scaledobjects", scaled_object)
        await double.put("autoscaling", "horizontalpodautoscalers", made_by_keda(scaled_object))
        await double.put("autoscaling", "horizontalpodautoscalers", one_of("HorizontalPodAutoscaler", "llama-frontend"))
        settings = {
            "metrics_api": {"host": "127.0.0.1", "port": site.keda},
            "kubeconfig": str(await cluster.kubeconfig()),
            "read_back_s": 0.1,
            "claim_ttl_s": 1,
        }
        async with site.connector(settings):
            await site.ready()
            reads = len(double.requests)
            await until(lambda: len(double.requests) > reads + 4, "autoscalers to be read again")
            assert (await site.page("/readyz"))[1] == "ok\n"
            dropped = one_of("HorizontalPodAutoscaler", "llama-decode")
            for rules in dropped["spec"]["behavior"].values():
                del rules["tolerance"]  # As a server before Kubernetes 1.35 does.
            await double.put("autoscaling", "horizontalpodautoscalers", dropped)
            words = "prod/llama-decode ignores single steps of pool decode of prod-llama from 10 replicas on"

            async def noted() -> bool:
                return words in (await site.page("/readyz"))[1]

            await until(noted, "the note on /readyz")
            status, text = await site.page("/readyz")
            assert status == 200
            assert "keda-hpa-llama-decode" not in text
            assert words in str((await site.asked_by_keda("/v1/deployments"))[1]["notes"])
            assert (
                'autoscaler="llama-decode",deployment="prod-llama",pool="decode"} 10.0'
                in (await site.page("/metrics"))[1]
            )

            async def on_the_bus() -> bool:
                found = await site.printed("status", "--json")
                return any(one.startswith(DEPLOYMENT) and words in one for one in found["hints"])

            await until(on_the_bus, "the hint of wattscale status", every_s=0.2)
            checks = {one["check"]: one for one in (await site.printed("verify", "--json", "--wait", "0"))["checks"]}
            assert (checks["connector"]["verdict"], checks["connector"]["remedy"]) == ("pass", "")
            assert "serves #0 to autoscalers" in checks["connector"]["detail"]
            assert checks["single steps"]["verdict"] == "warn"
            assert words in checks["single steps"]["detail"]
            assert "--horizontal-pod-autoscaler-tolerance" in checks["single steps"]["remedy"]
        assert site.log.read_text().count(words) == 1


async def test_a_second_connector_and_a_missing_kubeconfig_end_it_with_one_line(tmp_path: Path) -> None:
    async with autoscaler_site(tmp_path) as site:
        async with site.connector({"kubeconfig": str(tmp_path / "none")}) as process:
            assert await asyncio.wait_for(process.wait(), 60) == 2
        (line,) = site.log.read_text().splitlines()
        assert str(tmp_path / "none") in line
        held = Holder("kubernetes on here", "process 1")
        async with claimed(site.bus, held, {DEPLOYMENT: {}}) as claims:
            keeping = asyncio.create_task(claims.keep())
            async with site.connector({"metrics_api": {"host": "127.0.0.1", "port": site.keda}}) as process:
                assert await asyncio.wait_for(process.wait(), 60) == 2
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        assert "is scaled by connector kubernetes on here (process 1)" in site.log.read_text().splitlines()[-1]


async def test_a_connectors_rights_on_the_bus_are_enough(tmp_path: Path) -> None:
    async with roled(tmp_path) as roles:
        site = AutoscalerSite(await roles.as_("planner"), roles.server.url, roles.server.pid, tmp_path)
        await site.decide(0, 21)
        settings = {"metrics_api": {"host": "127.0.0.1", "port": site.keda}, "nats": roles.bus_settings("a")}
        async with site.connector(settings):
            await keda_gets(site, 200, 21)
            await site.decide(1, 22)
            await keda_gets(site, 200, 22)
        assert "ermission" not in site.log.read_text()


async def _external(site: AutoscalerSite, cluster: TrustedCluster) -> dict[str, Any]:
    """Settings for the external metrics API alone."""
    return {
        "metrics_api": {"port": "none"},
        "kubeconfig": str(await cluster.kubeconfig()),
        "external_metrics": {
            "host": "127.0.0.1",
            "port": site.external,
            "tls_cert_file": str(cluster.server.cert),
            "tls_key_file": str(cluster.server.key),
            "reload_s": 0.2,
        },
    }


async def _ask(
    site: AutoscalerSite, cluster: TrustedCluster, client: Pair | None, headers: dict[str, str], path: str = METRIC
) -> Answer:
    return await site.asked_by_hpa(path, cluster.serving.own.cert, client, headers)
