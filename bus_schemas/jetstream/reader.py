"""Reading the bus: the one door for readers. Creates nothing on the server; direct get is all it needs."""

from bus_schemas.jetstream.stored_messages import (
    StoredMessage,
    all_messages,
    last,
    last_per_subject,
    next_messages,
    stored_id,
)
from bus_schemas.jetstream.watch import follow

__all__ = ["StoredMessage", "all_messages", "follow", "last", "last_per_subject", "next_messages", "stored_id"]
