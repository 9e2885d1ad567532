"""Values only: what the planner knows and decides, with units in every name.

Nothing here acts, waits, reads a clock or knows the wire format. Domain types may change at any time; the wire types
of ``bus_schemas`` are promises, and adapters translate between the two.
"""
