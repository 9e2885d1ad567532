"""The contract between planners, agents, connectors and outside orchestrators on the bus.

A leaf package: it imports nothing of planner, agent or deploy, and needs pydantic and nats-py only, so that an
orchestrator can install it alone. ``v1``, ``subjects``, ``streams`` and ``codec`` are pure; ``jetstream``
talks to a server; ``client`` is for outside orchestrators.
"""
