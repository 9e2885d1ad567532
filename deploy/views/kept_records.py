"""How long the bus keeps plan records, and how many of each deployment, in words (``bus_schemas/streams.py``)."""

RECORDS_LAST = "two hours"
RECORDS_OF_EACH = "the newest 240 of a deployment"
