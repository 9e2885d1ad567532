"""A request for a running deployment: what was asked for, how far it has come, and what is written for it.

Law: everything here is pure. Files, clusters, processes and the clock belong to `deploy`, which observes and acts.
"""
