"""Runs, scores, reports and replay: what a policy was worth on a load."""
