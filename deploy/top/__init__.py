"""`wattscale top`: the dashboard's picture in a terminal.

``shown``, ``table_rows`` and ``top_tables`` are pure: from the parts and lines that the dashboard's feed sends to every
viewer, to rows of text. ``rows_view`` and ``top_app`` need Textual and are imported where they are used. Publishes
nothing and needs no more than an observer's rights.
"""
