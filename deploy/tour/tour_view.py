"""What a tour has read from the bus so far: the newest of each kind, and all plan records and scaling messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from bus_schemas import v1
from deploy.views.site_view import SiteView


@dataclass(slots=True)
class TourView:
    """Fed by `deploy.views.bus_reader.watching`."""

    picture: SiteView = field(default_factory=SiteView)
    records: list[v1.PlanRecord] = field(default_factory=list)
    decisions: list[v1.ScalingDecision] = field(default_factory=list)
    answers: dict[tuple[str, int], v1.ScalingAck] = field(default_factory=dict)
    """The newest answer to each scaling decision, by deployment and id."""
    leases: list[v1.Lease] = field(default_factory=list)
    """The first lease of each term."""

    def add(self, message: v1.Message) -> None:
        """Add one message."""
        self.picture.add(message)
        match message:
            case v1.PlanRecord():
                self.records.append(message)
            case v1.ScalingDecision():
                self.decisions.append(message)
            case v1.ScalingAck():
                self.answers[message.deployment, message.decision_id] = message
            case v1.Lease() if not self.leases or self.leases[-1].holder != message.holder:
                self.leases.append(message)

    def records_since(self, since: datetime) -> list[v1.PlanRecord]:
        """Those of a later time."""
        return [one for one in self.records if one.time > since]

    def carried_out(self, decision: v1.ScalingDecision) -> bool:
        """Whether the deployment's connector has carried this decision, or a later one, out."""
        view = self.picture.deployments.get(decision.deployment)
        return view is not None and view.scaled_decision_id >= decision.decision_id
