"""The chart with the values of the evaluation and its built-in graph, as `deploy/kubernetes/try` installs it."""

from __future__ import annotations

import functools

from deploy.kubernetes.evaluation import VALUES
from deploy.kubernetes.in_cluster import NAMESPACE, RELEASE
from tests.integration.chart.rendered import CHART, Rendered, template


@functools.cache
def evaluation_release() -> Rendered:
    """All its manifests."""
    values = [word for name in ("evaluation", "chat") for word in ("--values", str(VALUES / f"{name}.yaml"))]
    return template(RELEASE, str(CHART), "--namespace", NAMESPACE, *values)
