"""Measures what an engine can do and what it draws, and writes the profile that the planner sizes by.

Law: results | online | requests > analysis; requests and analysis are pure, and time is an argument there.
"""
