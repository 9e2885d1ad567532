"""The performance model: what an engine can do at a load, from its profile, corrected by what is observed."""
