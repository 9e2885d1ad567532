"""Benchmarks of our planner in the plant."""
