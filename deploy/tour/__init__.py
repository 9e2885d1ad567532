"""A walk through a running site for a newcomer: step by step, with real processes, and figures read from the bus.

Owns the steps and the processes that they kill. Every part runs the same code as in `deploy/demo`, but planners and
power agents are processes of their own, so that one can be killed as on a real site.
"""
