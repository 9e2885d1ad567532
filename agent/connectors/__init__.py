"""Connectors: processes that take scaling decisions from the bus, carry them out, and acknowledge what is true.

Each is a thin shell around `agent/core/scaling`: it does the input and output, and decides nothing. One process scales
one deployment.
"""
