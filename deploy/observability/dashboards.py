"""Grafana's dashboards, made from short rows of panels, so that ids, data source and units cannot be forgotten.

python -m deploy.observability.dashboards           writes them beside this file, into dashboards/
python -m deploy.observability.dashboards --check   exit 1 where the files differ
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.generated_files import differing, write_or_check

HERE = Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION = 41
"""Of Grafana 11.6; newer versions migrate it when they load it."""
WIDTH, HEIGHT, PER_ROW = 24, 8, 3


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart over time. ``series``: (query, legend)."""

    title: str
    unit: str
    series: tuple[tuple[str, str], ...]
    about: str = ""


@dataclass(frozen=True, slots=True)
class Variable:
    """A drop-down of a label's values."""

    name: str
    query: str
    label: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One dashboard: ``rows`` of panels by title."""

    uid: str
    title: str
    variables: tuple[Variable, ...]
    rows: Mapping[str, Sequence[Panel]]

    def model(self) -> dict[str, Any]:
        """As Grafana imports it."""
        panels: list[dict[str, Any]] = []
        y = 0
        for title, row in self.rows.items():
            place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
            panels.append({"type": "row", "title": title, "gridPos": place, "collapsed": False, "panels": []})
            y += 1
            for at, panel in enumerate(row):
                width = WIDTH // PER_ROW
                place = {"x": at % PER_ROW * width, "y": y + at // PER_ROW * HEIGHT, "w": width, "h": HEIGHT}
                panels.append(_panel(panel, place))
            y += -(-len(row) // PER_ROW) * HEIGHT
        for number, made in enumerate(panels, 1):
            made["id"] = number
        return {
            "uid": self.uid,
            "title": self.title,
            "tags": ["wattscale"],
            "schemaVersion": SCHEMA_VERSION,
            "editable": True,
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": [_data_source(), *(_variable(one) for one in self.variables)]},
            "panels": panels,
        }


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
        for at, (expr, legend) in enumerate(panel.series)
    ]
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": targets,
    }


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(one: Variable) -> dict[str, Any]:
    return {
        "name": one.name,
        "label": one.label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": one.query, "refId": one.name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
    }


SITE = Variable("site", "label_values(wattscale_site_watts, site)", "Site")
DEPLOYMENT = Variable("deployment", "label_values(wattscale_planner_replicas, deployment)", "Deployment")
NAMESPACE = Variable(
    "dynamo_namespace", "label_values(dynamo_planner_num_prefill_replicas, dynamo_namespace)", "Namespace"
)
NODE = Variable("node", "label_values(wattscale_agent_decision_id, node)", "Node")


def _site(account: str) -> str:
    return f'max by (site) (wattscale_site_watts{{site=~"$site",account="{account}"}})'


def _dynamo(name: str) -> str:
    return f'max by (dynamo_namespace) ({name}{{dynamo_namespace=~"$dynamo_namespace"}})'


def _planner(name: str, rest: str = "", by: str = "deployment") -> str:
    labels = f'deployment=~"$deployment"{"," if rest else ""}{rest}'
    return f"max by ({by}) ({name}{{{labels}}})"


def _agent(name: str, by: str = "node") -> str:
    return f'sum by ({by}) ({name}{{node=~"$node"}})'


def _rate(name: str, labels: str, by: str) -> str:
    return f"sum by ({by}) (rate({name}{{{labels}}}[5m]))"


WATTS = Panel(
    "Watts against the budget",
    "watt",
    tuple((_site(one), f"{{{{site}}}} {one}") for one in ("budget", "charged", "enforced", "draw")),
    "Charged: the most that GPUs may draw by all decisions published so far. Enforced: the sum of limits in force.",
)
REPLICAS = Panel(
    "Replicas",
    "short",
    tuple(
        (_planner("wattscale_planner_replicas", f'stage="{one}"', "deployment, pool"), f"{{{{pool}}}} {one}")
        for one in ("current", "wanted", "granted")
    ),
)
GOOD = Panel(
    "Share of good requests",
    "percentunit",
    ((_planner("wattscale_planner_good_share", "", "deployment, phase, kind"), "{{deployment}} {{phase}} {{kind}}"),),
)
BUDGET_LEFT = Panel(
    "Error budget left",
    "percentunit",
    (
        (
            _planner("wattscale_planner_error_budget_left", "", "deployment, period"),
            "{{deployment}} this {{period}}",
        ),
    ),
    "Of the late requests that the promised share (slo_share) has allowed so far. Below 0: overspent.",
)
LIMITS = Panel(
    "What limits decisions",
    "ops",
    (
        (
            _rate("wattscale_planner_limits_total", 'deployment=~"$deployment"', "deployment, pool, reason"),
            "{{pool}} {{reason}}",
        ),
    ),
    "Each reason that changed a count between wanted and granted; planner/REASONS.md explains them.",
)
PROBLEMS = Panel("Problems", "short", (("max by (problem, who) (wattscale_planner_problem)", "{{problem}} {{who}}"),))


def dashboards() -> tuple[Dashboard, ...]:
    """All of them."""
    return (_overview(), _dynamos(), _power(), _decisions(), _agents(), _bus())


def _overview() -> Dashboard:
    leading = Panel(
        "Leader",
        "short",
        (("wattscale_planner_leading", "{{instance}} leads"), ("wattscale_planner_hindered", "{{instance}} hindered")),
    )
    connected = Panel("Agents on the bus", "short", (("sum(wattscale_agent_bus_connected)", "connected"),))
    return Dashboard(
        "wattscale-overview",
        "Wattscale: overview",
        (SITE, DEPLOYMENT),
        {"Site": (WATTS, leading, connected), "Deployments": (REPLICAS, GOOD, BUDGET_LEFT, PROBLEMS)},
    )


def _dynamos() -> Dashboard:
    def pair(title: str, unit: str, **series: str) -> Panel:
        return Panel(title, unit, tuple((_dynamo(name), legend) for legend, name in series.items()))

    workers = pair(
        "Workers", "short", prefill="dynamo_planner_num_prefill_replicas", decode="dynamo_planner_num_decode_replicas"
    )
    hours = pair("Cumulative GPU hours", "h", gpu_hours="dynamo_planner_gpu_hours")
    observed = (
        pair("TTFT", "ms", observed="dynamo_planner_observed_ttft_ms", target="dynamo_planner_sla_target_ttft_ms"),
        pair("ITL", "ms", observed="dynamo_planner_observed_itl_ms", target="dynamo_planner_sla_target_itl_ms"),
        pair("Request duration", "s", observed="dynamo_planner_observed_request_duration_seconds"),
    )
    predicted = (
        pair(
            "Requests",
            "reqps",
            observed="dynamo_planner_observed_requests_per_second",
            predicted="dynamo_planner_predicted_requests_per_second",
        ),
        pair(
            "Sequence lengths",
            "short",
            input="dynamo_planner_predicted_input_sequence_tokens",
            output="dynamo_planner_predicted_output_sequence_tokens",
        ),
        pair(
            "Replicas predicted",
            "short",
            prefill="dynamo_planner_predicted_num_prefill_replicas",
            decode="dynamo_planner_predicted_num_decode_replicas",
        ),
    )
    correction = Panel(
        "Correction factors",
        "short",
        (("max by (deployment, phase) (wattscale_planner_correction)", "{{deployment}} {{phase}}"),),
    )
    return Dashboard(
        "wattscale-dynamo",
        "Wattscale: Dynamo planner",
        (NAMESPACE,),
        {
            "Worker counts and GPU hours": (workers, hours),
            "Observed": observed,
            "Predicted": predicted,
            "Correction factors": (correction,),
        },
    )


def _power() -> Dashboard:
    gpus = Panel(
        "A pool's GPUs",
        "watt",
        ((_planner("wattscale_planner_gpu_watts", "", "deployment, pool, figure"), "{{pool}} {{figure}}"),),
    )
    free = Panel("Free watts and shortfall", "watt", tuple((_site(one), one) for one in ("free", "shortfall")))
    frozen = Panel(
        "Raises frozen by", "short", (('max by (invariant) (wattscale_site_frozen{site=~"$site"})', "{{invariant}}"),)
    )
    return Dashboard(
        "wattscale-power", "Wattscale: power", (SITE, DEPLOYMENT), {"Sites": (WATTS, free, frozen), "Pools": (gpus,)}
    )


def _decisions() -> Dashboard:
    ready = Panel("Last decision carried out", "bool", ((_planner("wattscale_planner_ready"), "{{deployment}}"),))
    writers = Panel(
        "Pools with a second writer",
        "short",
        ((_planner("wattscale_connector_second_writer_pools", "", "deployment, writer"), "{{deployment}} {{writer}}"),),
        "Of the Kubernetes connector: pools whose count an autoscaler, a person or another program sets.",
    )
    published = Panel(
        "Decisions published", "ops", (("sum by (kind) (rate(wattscale_planner_decisions_total[5m]))", "{{kind}}"),)
    )
    return Dashboard(
        "wattscale-decisions",
        "Wattscale: decisions",
        (DEPLOYMENT,),
        {"Decisions": (REPLICAS, LIMITS, ready, writers, published)},
    )


def _agents() -> Dashboard:
    limits = Panel(
        "Limits by node",
        "watt",
        tuple((_agent(f"wattscale_gpu_{one}_watts"), f"{{{{node}}}} {one}") for one in ("granted", "enforced", "draw")),
    )
    health = Panel("GPUs by state", "short", (('sum by (state) (wattscale_gpu_health{node=~"$node"})', "{{state}}"),))
    changed = Panel(
        "Limits changed by others",
        "ops",
        ((_rate("wattscale_agent_drift_total", 'node=~"$node"', "node"), "{{node}}"),),
    )
    ended = Panel(
        "Leases ended", "ops", ((_rate("wattscale_agent_lapses_total", 'node=~"$node"', "node"), "{{node}}"),)
    )
    age = Panel("Age of the last reconcile", "s", ((_agent("wattscale_agent_last_reconcile_age_seconds"), "{{node}}"),))
    errors = Panel(
        "Limits refused by the driver",
        "ops",
        ((_rate("wattscale_agent_write_errors_total", 'node=~"$node"', "node"), "{{node}}"),),
    )
    return Dashboard(
        "wattscale-agents",
        "Wattscale: agents",
        (NODE,),
        {"GPUs": (limits, health, errors), "Agents": (age, changed, ended)},
    )


def _bus() -> Dashboard:
    published = Panel(
        "Time until a batch is stored, 99 of 100",
        "s",
        (("histogram_quantile(0.99, sum by (le) (rate(wattscale_planner_publish_seconds_bucket[5m])))", "99 %"),),
    )
    terms = Panel("Terms begun", "ops", (("sum(rate(wattscale_planner_terms_total[5m]))", "terms"),))
    received = Panel(
        "Decisions received by agents",
        "ops",
        (("sum by (verdict) (rate(wattscale_agent_decisions_total[5m]))", "{{verdict}}"),),
    )
    return Dashboard(
        "wattscale-bus", "Wattscale: bus", (), {"Bus": (published, terms, received), "Planners": (PROBLEMS,)}
    )


def files() -> dict[Path, str]:
    """Each dashboard's file and its text."""
    return {
        HERE / f"{one.uid.removeprefix('wattscale-')}.json": json.dumps(one.model(), indent=1) + "\n"
        for one in dashboards()
    }


def drifted() -> Mapping[Path, str]:
    """Files that differ from what this module would write."""
    return differing(files())


if __name__ == "__main__":
    sys.exit(write_or_check(files()))
