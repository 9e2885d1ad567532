"""Reading the bus: the one door for readers. Creates nothing on the server; direct get is all it needs."""

from bus_schemas.jetstream.follow import follow
from bus_schemas.jetstream.lookup import Stored, all_messages, last, last_per_subject, next_messages, stored_id

__all__ = ["Stored", "all_messages", "follow", "last", "last_per_subject", "next_messages", "stored_id"]
