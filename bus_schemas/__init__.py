"""The contract: what planners, agents, connectors and outside orchestrators say to each other on the bus.

A leaf: imports nothing of planner, agent or deploy, and needs pydantic and nats-py only, so that an
orchestrator can install just this. ``v1``, ``subjects``, ``streams`` and ``codec`` are pure; ``jetstream``
talks to a server; ``client`` is for outside orchestrators.
"""
