"""Commands with which an operator changes what planners do: budgets, deployments, nodes."""
