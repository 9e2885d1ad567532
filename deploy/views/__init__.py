"""Looking at a running site from the bus alone: what the messages add up to, and how it is shown.

Reads only; knows nothing that an outside subscriber could not know.
"""
