"""Forecasts of the load at the time when new capacity could serve it. Light models only; pure, frozen values."""
