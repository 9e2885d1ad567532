"""Measures a real engine over HTTP: its client, its process, the log of measurements, one run."""
