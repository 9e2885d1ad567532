"""The performance model: the latency and capacity of an engine at a load, by profile and observation."""
