"""Where readings come from: engines' ``/metrics``, Prometheus, the bus. Unknown is Missing with a reason, never 0."""
