"""How KEDA names a pool: in the address of its `metrics-api` trigger, or in the metadata of its external ones. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

ROOT = "/v1/deployments"
_PATH_PARTS = 5


def asked_pool(path: str) -> tuple[str, str] | None:
    """Deployment and pool of ``/v1/deployments/NAME/pools/POOL``; None for another path.

    ``path`` as it is sent: a name may hold a ``/``, written ``%2F``.
    """
    parts = path.strip("/").split("/")
    if len(parts) != _PATH_PARTS or (parts[0], parts[1], parts[3]) != ("v1", "deployments", "pools"):
        return None
    return unquote(parts[2]), unquote(parts[4])


def named_pool(metadata: Mapping[str, object]) -> tuple[str, str] | None:
    """Deployment and pool of the metadata of an external trigger; None where it does not name both."""
    deployment, pool = (str(metadata.get(key) or "") for key in ("deployment", "pool"))
    return (deployment, pool) if deployment and pool else None
