"""The embedded default: server, streams, simulated cluster, planner, agents and connector in one command.

Owns how the rooms are put together on one machine. Decides nothing itself: every part runs the code that a
real site runs, and the parts meet on the bus only.
"""
