"""Safety of scaling: windows, rates, bounds, readiness and held metrics. Each limiter says what it did and why."""
