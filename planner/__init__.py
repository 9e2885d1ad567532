"""The planner: observe, decide, publish. Never calls an agent; all that passes between them is on the bus.

Law: runtime > adapters | sim | profiler > ports > core > domain; core and domain are pure.
"""
