"""The promised share of good requests: its error budget, and the quantile that is sized for to keep it."""
