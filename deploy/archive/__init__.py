"""The journal of a bus, kept longer than the bus keeps it: one file a day."""
