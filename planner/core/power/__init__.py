"""Power: the ledger of what every GPU may draw, the orders that keep its sum within the budget, and the law of speed.

``site.py`` is the door for the planner's step; ``README.md`` states the promises and how they are proved.
"""
