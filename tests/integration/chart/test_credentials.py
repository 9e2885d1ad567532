"""Who reads which credentials of the bus: each pod its own and no other's, or the roles would keep nobody apart."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from planner.runtime.config import settings as planner_settings
from tests.integration.chart.rendered import CASES, VERSIONS, Manifest, RefusedError, Rendered, rendered, values_of

pytestmark = pytest.mark.xdist_group("chart")
ALL = "*"
SECOND = json.dumps({"kind": "virtual", "settings": {"deployment": "lab", "etcd": {"endpoints": ["http://etcd:2379"]}}})


def _readable(template: Manifest) -> set[tuple[str, str]]:
    """(Secret, key) that a pod can read, whichever way it gets them; ``ALL`` where no key is named."""
    found: set[tuple[str, str]] = set()
    for volume in template["spec"].get("volumes", []):
        sources = [volume, *volume.get("projected", {}).get("sources", [])]
        for secret in [one["secret"] for one in sources if "secret" in one]:
            name = secret.get("secretName") or secret["name"]
            found |= {(name, item["key"]) for item in secret.get("items", [{"key": ALL}])}
    for container in [*template["spec"]["containers"], *template["spec"].get("initContainers", [])]:
        found |= {(one["secretRef"]["name"], ALL) for one in container.get("envFrom", []) if "secretRef" in one}
        keys = [one.get("valueFrom", {}).get("secretKeyRef") for one in container.get("env", [])]
        found |= {(one["name"], one["key"]) for one in keys if one}
    return found


def _held(release: Rendered, secrets: set[str]) -> dict[str, set[tuple[str, str]]]:
    """What each component reads of these Secrets."""
    return {
        component: {one for one in _readable(template) if one[0] in secrets} for component, template in release.pods()
    }


def _auth(case: str) -> dict[str, Any]:
    nats: dict[str, Any] = yaml.safe_load(values_of(case).read_text()).get("nats", {})
    auth: dict[str, Any] = nats.get("auth", {"mode": "none"})
    return auth


WITH_CREDENTIALS = [case for case in CASES if _auth(case)["mode"] != "none"]


def test_cases_of_both_kinds_of_credentials_are_checked() -> None:
    assert {_auth(case)["mode"] for case in WITH_CREDENTIALS} == {"nkey", "creds"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", WITH_CREDENTIALS)
def test_no_pod_mounts_another_components_seed(case: str, version: str) -> None:
    auth = _auth(case)
    clients, agents = auth["clientSecret"], auth["agentSecret"]
    end = {"nkey": "nk", "creds": "creds"}[auth["mode"]]
    release = rendered(case, version, extra=("--set-json", f"connectors.second={SECOND}"))
    held = _held(release, {clients, agents})
    connectors = {name for name in held if name.startswith("connector-")}
    assert len(connectors) == 2
    own = {name: {(clients, f"{name.removeprefix('connector-')}.{end}")} for name in connectors}
    # A DaemonSet has one Secret for all of its pods; it holds nothing but files of agents.
    wanted: dict[str, set[tuple[str, str]]] = {
        "planner": {(clients, f"planner.{end}")},
        "agent": {(agents, ALL)},
        **own,
    }
    if "nats" in held:
        wanted["nats"] = set()
    assert held == wanted


@pytest.mark.parametrize("case", WITH_CREDENTIALS)
def test_each_program_is_given_the_file_that_its_pod_mounts(case: str) -> None:
    release = rendered(case)
    for component, template in release.pods():
        volumes = {one["name"]: one for one in template["spec"]["volumes"]}
        if "bus" not in volumes or component == "agent":
            continue
        (container,) = template["spec"]["containers"]
        (folder,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "bus"]
        (item,) = volumes["bus"]["secret"]["items"]
        settings = yaml.safe_load(release.settings(f"-{component}"))
        bus = settings.get("bus") or settings["nats"]
        assert (bus.get("nkey_seed_file") or bus["creds_file"]) == f"{folder}/{item['path']}"


def test_a_secret_shared_with_certificates_gives_away_no_seed() -> None:
    shared = ("--set=nats.tls.clientSecret=wattscale-bus", "--set=nats.tls.serverSecret=wattscale-bus")
    certificates = {("wattscale-bus", one) for one in ("ca.crt", "tls.crt", "tls.key")}
    held = _held(rendered("dynamo", extra=shared), {"wattscale-bus"})
    assert held["agent"] == held["nats"] == certificates
    assert held["planner"] == certificates | {("wattscale-bus", "planner.nk")}


SHARED = {
    "nats.auth.agentSecret=": "nats.auth.agentSecret: name the Secret",
    "nats.auth.clientSecret=": "nats.auth.clientSecret: name the Secret",
    "nats.auth.agentSecret=wattscale-bus": "nats.auth.agentSecret: must be another Secret than nats.auth.clientSecret",
    "connectors.chat.secret=wattscale-bus": "connectors.chat.secret: must be another Secret than",
    "connectors.chat.secret=wattscale-agents": "connectors.chat.secret: must be another Secret than",
}
"""Values that would give a pod the files of others, and what Helm answers."""


@pytest.mark.parametrize("value", SHARED)
def test_a_secret_that_would_give_away_seeds_is_refused(value: str) -> None:
    with pytest.raises(RefusedError, match=SHARED[value]):
        rendered("dynamo", extra=(f"--set={value}",))


def test_a_connector_cannot_have_the_planners_name_and_so_its_file() -> None:
    with pytest.raises(RefusedError, match="planner"):
        rendered("dynamo", extra=("--set-json", f"connectors.planner={SECOND}"))


STEERS = ("--set=planner.steerSecret=steerers", "--set=planner.settings.dashboard.port=9095")


@pytest.mark.parametrize("case", WITH_CREDENTIALS)
def test_a_page_that_steers_gets_tokens_and_the_operators_login_and_no_other_pod_does(case: str) -> None:
    login = {"nkey": "operator.nk", "creds": "operator.creds"}[_auth(case)["mode"]]
    release = rendered(case, extra=STEERS)
    held = _held(release, {"steerers"})
    assert held.pop("planner") == {("steerers", "tokens"), ("steerers", login)}
    assert not any(held.values())
    dashboard = planner_settings.Settings.model_validate(yaml.safe_load(release.settings("-planner"))).dashboard
    assert dashboard.steering is not None
    assert (dashboard.port, str(dashboard.steering.token_file)) == (9095, "/etc/wattscale/steer/tokens")
    given = dashboard.steering.nkey_seed_file or dashboard.steering.creds_file
    assert str(given) == f"/etc/wattscale/steer/{login}"


def test_without_logins_on_the_bus_the_page_steers_by_tokens_alone() -> None:
    release = rendered("minimal", extra=STEERS)
    assert _held(release, {"steerers"})["planner"] == {("steerers", "tokens")}
    assert yaml.safe_load(release.settings("-planner"))["dashboard"]["steering"] == {
        "token_file": "/etc/wattscale/steer/tokens"
    }


def test_a_page_that_steers_needs_a_port() -> None:
    with pytest.raises(RefusedError, match=r"set planner.settings.dashboard.port"):
        rendered("dynamo", extra=STEERS[:1])
