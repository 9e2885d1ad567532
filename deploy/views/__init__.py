"""Views of a running site, built from the bus alone: the state that the messages add up to, and how it is shown.

Reads only; uses nothing that an outside subscriber could not read.
"""
