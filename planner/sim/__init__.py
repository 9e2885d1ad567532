"""The plant: a simulated serving cluster on which decisions are measured, and peers to compare them with.

Owns a discrete-event model of requests, workers and GPUs in virtual time, workloads, scores and reports. Must never
decide anything itself: policies do, ours through the same ``step()`` that runs in production. Uses no bus and
no cluster API: profiles, power curves and traces come in as values.
"""
