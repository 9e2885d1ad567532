"""What to measure, and what measurements mean: points, repeats, windows, fits, recommendations. Pure."""
