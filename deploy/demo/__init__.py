"""The embedded default: server, streams, simulated cluster, planner, agents and connector in one command.

Owns how the packages are composed on one machine. Decides nothing itself: every part runs the same code as on a
real site, and the parts communicate only over the bus.
"""
