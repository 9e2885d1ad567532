"""The chart's bus: the roles of the code and no others, and configurations that a real server takes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus_schemas.subjects import Subjects
from deploy.nats.binary import find_server
from deploy.nats.cluster import server
from deploy.nats.roles import SiteAccounts, accounts, inbox_prefix
from tests.contract.roles.certificates import Authority
from tests.integration.chart.rendered import VERSIONS, RefusedError, Rendered, rendered, values_of

pytestmark = pytest.mark.xdist_group("chart")
PINNER = "U" + "P" * 55


def _conf(case: str, version: str = VERSIONS[-1]) -> dict[str, Any]:
    """The server's configuration by setting; variables as text."""
    lines = rendered(case, version).one("ConfigMap", "-nats")["data"]["nats.conf"].splitlines()
    made = {}
    for line in lines:
        name, _, value = line.partition(": ")
        made[name] = value if value.startswith("$") else json.loads(value)
    return made


def _accounts(release: Rendered) -> dict[str, Any]:
    """The accounts in a release's configuration of the server."""
    lines = release.one("ConfigMap", "-nats")["data"]["nats.conf"].splitlines()
    (line,) = [one for one in lines if one.startswith("accounts: ")]
    made: dict[str, Any] = json.loads(line.removeprefix("accounts: "))
    return made


@pytest.mark.parametrize("version", VERSIONS)
def test_accounts_and_permissions_are_those_of_the_roles(version: str) -> None:
    auth = yaml.safe_load(values_of("dynamo").read_text())["nats"]["auth"]

    def user(key: str) -> dict[str, str]:
        return {"nkey": key}

    site = SiteAccounts(
        planners=(user(auth["planner"]),),
        operators=(user(auth["operator"]),),
        observers=(user(auth["observer"]),),
        agents={node: user(key) for node, key in sorted(auth["agents"].items())},
        connectors={
            name: (user(one["nkey"]), tuple(one["deployments"])) for name, one in sorted(auth["connectors"].items())
        },
    )
    found = _conf("dynamo", version)
    wanted = accounts(Subjects(), site)
    assert found["accounts"] == wanted["accounts"]
    assert found["system_account"] == wanted["system_account"]


def test_several_deployments_of_one_orchestrator_are_those_of_the_role() -> None:
    key = "U" + "G" * 55
    values = json.dumps({"nkey": key, "deployments": ["prod-a.b", "prod-c"]})
    release = rendered("dynamo", extra=("--set-json", f"nats.auth.connectors.other={values}"))
    users = _accounts(release)["WATTSCALE_FIELD"]["users"]
    site = SiteAccounts(connectors={"other": ({"nkey": key}, ("prod-a.b", "prod-c"))})
    (wanted,) = accounts(Subjects(), site)["accounts"]["WATTSCALE_FIELD"]["users"]
    (found,) = [one for one in users if one["nkey"] == key]
    for kind in ("publish", "subscribe"):
        assert sorted(found["permissions"][kind]["allow"]) == sorted(wanted["permissions"][kind]["allow"])


def _pins(deployments: list[str], listed: str = "pinners") -> tuple[str, ...]:
    """Arguments for a connector that turns a Dynamo planner's decisions into pins, with its key among ``listed``."""
    settings = {
        "deployment": deployments[0],
        "direction": "from-dynamo",
        "etcd": {"endpoints": ["http://etcd:2379"]},
    }
    connector = json.dumps({"kind": "virtual", "settings": settings})
    key = json.dumps({"nkey": PINNER, "deployments": deployments})
    return ("--set-json", f"connectors.pins={connector}", "--set-json", f"nats.auth.{listed}.pins={key}")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_connector_from_dynamo_has_the_users_and_replies_of_a_pinner(version: str) -> None:
    release = rendered("dynamo", version, extra=_pins(["lab"]))
    site = SiteAccounts(pinners={"pins": ({"nkey": PINNER}, ("lab",))})
    (wanted,) = accounts(Subjects(), site)["accounts"]["WATTSCALE_VIEW"]["users"]
    made = _accounts(release)
    assert [one for one in made["WATTSCALE_VIEW"]["users"] if one["nkey"] == PINNER] == [wanted]
    assert PINNER not in json.dumps(made["WATTSCALE_FIELD"])
    assert yaml.safe_load(release.settings("-connector-pins"))["nats"]["inbox_prefix"] == inbox_prefix("pinner", "pins")


def test_several_deployments_of_a_pinner_are_those_of_the_role() -> None:
    release = rendered("dynamo", extra=_pins(["prod-a.b", "prod-c"]))
    site = SiteAccounts(pinners={"pins": ({"nkey": PINNER}, ("prod-a.b", "prod-c"))})
    (wanted,) = accounts(Subjects(), site)["accounts"]["WATTSCALE_VIEW"]["users"]
    (found,) = [one for one in _accounts(release)["WATTSCALE_VIEW"]["users"] if one["nkey"] == PINNER]
    for kind in ("publish", "subscribe"):
        assert sorted(found["permissions"][kind]["allow"]) == sorted(wanted["permissions"][kind]["allow"])


def test_a_connector_from_dynamo_without_a_pinners_key_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"nats\.auth\.pinners\.pins: connectors\.pins sends pins"):
        rendered("dynamo", extra=_pins(["lab"], "connectors"))


def test_clients_use_the_replies_that_their_roles_may_read() -> None:
    release = rendered("dynamo")
    planner = yaml.safe_load(release.settings("-planner"))["bus"]
    assert planner["inbox_prefix"] == inbox_prefix("planner")
    assert planner["replicas"] == 3
    connector = yaml.safe_load(release.settings("-connector-chat"))["nats"]
    assert connector["inbox_prefix"] == inbox_prefix("connector", "chat")
    (container,) = release.one("DaemonSet")["spec"]["template"]["spec"]["containers"]
    variables = {one["name"]: one.get("value") for one in container["env"]}
    assert variables["WATTSCALE_AGENT_NATS__INBOX_PREFIX"] == f"{inbox_prefix('agent')}_$(NODE_NAME)"


def test_settings_of_the_server_are_those_of_the_code() -> None:
    wanted = server("$POD_NAME", store_dir="/data", monitor="0.0.0.0:8222")
    assert {name: value for name, value in _conf("minimal").items() if name in wanted} == wanted
    assert "cluster" not in _conf("minimal")
    routes = _conf("keda")["cluster"]["routes"]
    name = rendered("keda").one("StatefulSet")["spec"]["serviceName"]
    assert routes == [f"nats://{name}-{at}.{name}:6222" for at in range(3)]
    assert rendered("keda").one("StatefulSet")["spec"]["replicas"] == 3


@pytest.mark.parametrize("case", ["minimal", "keda", "dynamo"])
def test_a_real_server_takes_the_configuration(case: str, tmp_path: Path) -> None:
    text = rendered(case).one("ConfigMap", "-nats")["data"]["nats.conf"]
    authority = Authority(tmp_path)
    pair = authority.issue("nats")
    for name, file in (("tls.crt", pair.cert), ("tls.key", pair.key), ("ca.crt", authority.own.cert)):
        text = text.replace(f"/etc/nats/tls/{name}", str(file))
    # Valid keys in place of the made-up ones.
    text = _with_real_keys(text).replace('"/data"', json.dumps(str(tmp_path / "data")))
    file = tmp_path / "nats.conf"
    file.write_text(text)
    done = subprocess.run(
        [str(find_server()), "-t", "--config", str(file)],
        env={"POD_NAME": "w-nats-0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr


def _with_real_keys(text: str) -> str:
    import nkeys

    made: dict[str, str] = {}

    def real(found: re.Match[str]) -> str:
        if found[0] not in made:
            seed = nkeys.encode_seed(bytes([len(made) + 1]) * 32, nkeys.PREFIX_BYTE_USER)
            made[found[0]] = nkeys.from_seed(seed).public_key.decode()
        return made[found[0]]

    return re.sub(r"\bU[A-Z2-7]{55}\b", real, text)
