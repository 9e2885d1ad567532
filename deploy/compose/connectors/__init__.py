"""Composes connectors from their settings."""
