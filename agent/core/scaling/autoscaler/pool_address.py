"""Where KEDA's `metrics-api` scaler finds a pool's count. Pure."""

from __future__ import annotations

from collections.abc import Sequence

ROOT = "/v1/deployments"
_PATH_PARTS = 5


def asked_pool(parts: Sequence[str]) -> tuple[str, str] | None:
    """Deployment and pool of ``/v1/deployments/NAME/pools/POOL``, given as its parts; None for another path."""
    if len(parts) != _PATH_PARTS or (parts[0], parts[1], parts[3]) != ("v1", "deployments", "pools"):
        return None
    return parts[2], parts[4]
