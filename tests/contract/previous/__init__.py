"""The previous release beside today's: its messages, settings and chart as fixtures; its code from git where it is."""
