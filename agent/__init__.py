"""Agents: carry decisions out on one machine, and say what is in force. Never import the planner."""
