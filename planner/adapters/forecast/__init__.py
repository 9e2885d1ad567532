"""Forecast models that need a statistics package: loaded only when a deployment asks for one by name."""
