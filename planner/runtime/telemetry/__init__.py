"""What the planner shows of itself: metrics, traces, logs, health."""
