"""Commands that start a part of Wattscale: planner, agent, the whole loop."""
