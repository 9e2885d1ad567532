"""The plant: a simulated serving cluster to measure decisions on, and the peers to measure them against.

Owns a discrete-event model of requests, workers and GPUs in virtual time, workloads, scores and reports. Must never
decide anything itself: policies do, ours through the same ``step()`` that runs in production. Profiles, power curves
and traces are handed in as values, so that nothing here knows a bus, a cluster API or an adapter.
"""
