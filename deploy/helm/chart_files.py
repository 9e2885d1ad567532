"""What the chart takes from the code: the bus's roles and server settings, and the shape of its values.

python -m deploy.helm.chart_files           writes files/nats.json and values.schema.json into the chart
python -m deploy.helm.chart_files --check   exit 1 where they differ
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bus_schemas.subjects import Subjects
from deploy.generated_files import differing, write_or_check
from deploy.helm.values_schema import values_schema
from deploy.nats.cluster import Tls, clustered, server
from deploy.nats.roles import BUS_ACCOUNT, FIELD_ACCOUNT, SYSTEM_ACCOUNT, VIEW_ACCOUNT, SiteAccounts, accounts

CHART = Path(__file__).parent / "wattscale"
NODE, CONNECTOR, DEPLOYMENT = "MARK-NODE", "MARK-CONNECTOR", "MARK-DEPLOYMENT"
"""Stand for names that only an installation knows. A name is written into subjects with ``.`` as ``_``."""
FILES = Tls("/etc/nats/tls/tls.crt", "/etc/nats/tls/tls.key", "/etc/nats/tls/ca.crt", verify=False)


def bus_files() -> dict[str, Any]:
    """Server settings, accounts without users, and the permissions of each role, with marks for names."""
    nobody: dict[str, Any] = {}
    client = {CONNECTOR: (nobody, (DEPLOYMENT,))}
    site = SiteAccounts(
        planners=(nobody,),
        operators=(nobody,),
        observers=(nobody,),
        agents={NODE: nobody},
        connectors=client,
        system=(nobody,),
        pinners=client,
    )
    access = accounts(Subjects(), site)
    found = access["accounts"]
    agent, connector = found[FIELD_ACCOUNT].pop("users")
    observer, operator, pinner = found[VIEW_ACCOUNT].pop("users")
    users = {"agent": agent, "connector": connector, "observer": observer, "operator": operator, "pinner": pinner}
    users["planner"] = found[BUS_ACCOUNT].pop("users")[0]
    users["system"] = found[SYSTEM_ACCOUNT].pop("users")[0]
    # The monitoring port is for probes; nothing there is changed, and the NetworkPolicy keeps others out.
    base = server("$POD_NAME", store_dir="/data", monitor="0.0.0.0:8222")
    return {
        "server": base,
        "tls": FILES.conf(),
        "cluster": clustered({}, "0.0.0.0:6222", [])["cluster"],
        "accounts": found,
        "users": users,
        "names": {"bus": BUS_ACCOUNT, "field": FIELD_ACCOUNT, "view": VIEW_ACCOUNT, "system": SYSTEM_ACCOUNT},
        "marks": {"node": NODE, "connector": CONNECTOR, "deployment": DEPLOYMENT},
    }


def files() -> dict[Path, str]:
    """Each generated file of the chart and its text."""
    made = {CHART / "files" / "nats.json": bus_files(), CHART / "values.schema.json": values_schema()}
    return {path: json.dumps(value, indent=1, sort_keys=True) + "\n" for path, value in made.items()}


def drifted() -> Mapping[Path, str]:
    """Files that differ from what this module would write."""
    return differing(files())


if __name__ == "__main__":
    sys.exit(write_or_check(files()))
