"""Sizing: from a forecast load to the engine speed that each replica count would need. Knows queues, not watts."""
