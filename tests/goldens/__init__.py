"""Goldens: what the planner did before a change, as short digests that show whether a refactoring kept all of it.

    python -m tests.goldens check          compare all sources with ``data/``; 1 and the first differences in words
    python -m tests.goldens record         write ``data/`` anew, after a change of behaviour that was meant
    python -m tests.goldens show scarce "tick 37"    what is behind one line: run it in two checkouts and compare

Sources (``sources.py``): days through ``step`` and ``react`` (``days.py`` says what happens, ``fleet.py`` obeys), the
contract corpus through the wire's adapters (``corpus.py``), and the first events of the random proof (``proof.py``).

``shown.py`` is the only place that reads plans, orders and hardware. It writes plain tuples of ids, codes and numbers,
without names of types, modules or fields and without sentences for people: a renamed symbol changes no digest.
Numbers keep six digits, watts a milliwatt. A line does not depend on the lines before it, so the first difference is
where behaviour parted.
"""
