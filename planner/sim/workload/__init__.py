"""Loads to simulate: requests, generated workloads, scenarios."""
