"""Forecasts: what the load will be when new capacity can serve it. Light models only; pure, frozen values."""
