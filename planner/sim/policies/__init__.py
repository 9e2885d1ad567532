"""Policies to compare: ours, through the planner's own ``step``, and its peers, each by its published rule."""
