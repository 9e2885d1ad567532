"""Runs, scores, reports and replay: how well a policy served a load."""
