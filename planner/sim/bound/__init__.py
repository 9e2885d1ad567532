"""The least that a planner who knows the trace needs: a dynamic program over counts and caps."""
