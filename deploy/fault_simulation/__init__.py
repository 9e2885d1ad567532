"""The proof: a deterministic simulation that drives the real ledger and the real agent core through every failure.

One seed is one run. The checker adds up simulated HARDWARE limits after every event and never reads the ledger.
"""
