"""Carries requests out: on this machine, as a process against files."""
