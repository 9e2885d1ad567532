"""Worked examples of server configurations, generated so that they cannot differ from what is tested.

python -m deploy.nats.examples           writes them beside this file, into examples/
python -m deploy.nats.examples --check   exit 1 where the files differ
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bus_schemas.subjects import Subjects
from deploy.generated_files import differing, write_or_check
from deploy.nats.cluster import Tls, clustered, server
from deploy.nats.conf import pretty
from deploy.nats.roles import SiteAccounts, accounts

HERE = Path(__file__).parent / "examples"
FILES = Tls("/etc/nats/tls/server.pem", "/etc/nats/tls/server.key", "/etc/nats/tls/ca.pem")
STORE = "/var/lib/nats"


def _password(name: str) -> dict[str, str]:
    """A user whose password the server takes from its environment."""
    return {"user": name, "password": f"$WATTSCALE_{name.upper().replace('-', '_')}_PASSWORD"}


def _certificate(name: str) -> dict[str, str]:
    return {"user": f"CN={name},O=wattscale"}


def passwords() -> SiteAccounts:
    """One user per role by name and password."""
    return SiteAccounts(
        planners=(_password("planner"),),
        operators=(_password("operator"),),
        observers=(_password("observer"),),
        agents={"node-1": _password("node-1"), "node-2": _password("node-2")},
        connectors={"llama": (_password("llama"), ("prod-llama",))},
        system=(_password("system"),),
    )


def certificates() -> SiteAccounts:
    """One user per role by the subject of its client certificate."""
    return SiteAccounts(
        planners=(_certificate("planner"),),
        operators=(_certificate("operator"),),
        observers=(_certificate("observer"),),
        agents={"node-1": _certificate("node-1"), "node-2": _certificate("node-2")},
        connectors={"llama": (_certificate("llama"), ("prod-llama",))},
    )


def configurations() -> dict[str, dict[str, Any]]:
    """Settings by file name."""
    subjects = Subjects()
    single = server("wattscale-1", store_dir=STORE, access=accounts(subjects, passwords()))
    secure = server("wattscale-1", store_dir=STORE, tls=FILES, access=accounts(subjects, certificates()))
    secure["tls"] = {**FILES.conf(), "verify_and_map": True}
    made = {"single.conf": single, "single-tls-certificates.conf": secure}
    routes = [f"nats://nats-{number}.nats:6222" for number in range(3)]
    for number in range(3):
        member = server(f"nats-{number}", store_dir=STORE, tls=FILES, access=accounts(subjects, certificates()))
        member["tls"] = {**FILES.conf(), "verify_and_map": True}
        made[f"cluster-{number}.conf"] = clustered(member, "0.0.0.0:6222", routes, FILES)
    return made


_WORDS = {
    "single.conf": "One server; users with passwords from the server's environment.",
    "single-tls-certificates.conf": "One server with TLS; client certificates say who is who.",
}


def files() -> dict[Path, str]:
    """Every example and its text."""
    return {
        HERE / name: _head(_WORDS.get(name, "One of three servers; TLS for clients and between servers."))
        + pretty(settings)
        for name, settings in configurations().items()
    }


def _head(words: str) -> str:
    return (
        f"# {words}\n"
        "# Made by `python -m deploy.nats.examples`; the permissions are those of deploy/nats/roles.py.\n"
        "# For 5,000 agents give the server GOMEMLIMIT=300MiB GOGC=50, or half a gigabyte of memory.\n"
        "# sync_interval: always, because a power cut loses the last seconds of acknowledged messages otherwise.\n"
    )


def drifted() -> Mapping[Path, str]:
    """Files that differ from what this module would write."""
    return differing(files())


if __name__ == "__main__":
    sys.exit(write_or_check(files()))
