"""Allocation: which counts and caps a site's deployments get under its watts and GPUs. Pure."""
