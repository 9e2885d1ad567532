"""Every order of events in tiny worlds: a breadth-first search over the real ledger and the real agent core.

The random proof meets what its weather contains; this one leaves nothing out, within stated bounds. ``README.md`` in
this folder explains the method, argues why its canonical states are sound, and lists scopes and mutations.
"""
