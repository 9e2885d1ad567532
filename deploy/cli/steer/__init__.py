"""Commands by which an operator changes what planners do."""
