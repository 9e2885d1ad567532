"""Agents: carry out decisions on one machine and report what is in force. Never import the planner."""
