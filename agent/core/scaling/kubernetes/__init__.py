"""What Kubernetes objects say about the pools of a deployment, as values for the core of connectors. Pure.

A connector's shell keeps the objects current; here they become `PoolSeen`: what is wanted, what serves, what leaves,
who else writes the count, and what stands in the way.
"""
