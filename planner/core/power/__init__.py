"""Power: the ledger of what every GPU may draw, the decisions that keep its sum within the budget, and the power model.

``site_ledger.py`` is what the planner's step calls; ``README.md`` states the promises and how they are proved.
"""
