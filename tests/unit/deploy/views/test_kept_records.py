"""The words on how long plan records are kept are those of the stream."""

from __future__ import annotations

from bus_schemas.streams import PLANS, stream_specs
from bus_schemas.subjects import Subjects
from deploy.views.kept_records import RECORDS_LAST, RECORDS_OF_EACH


def test_they_are_what_the_stream_keeps() -> None:
    (plans,) = [spec for spec in stream_specs(Subjects()) if spec.name == PLANS]
    hours = {1.0: "an hour", 2.0: "two hours"}
    assert hours[plans.max_age_s / 3600.0] == RECORDS_LAST
    assert f"the newest {plans.max_msgs_per_subject} of a deployment" == RECORDS_OF_EACH
