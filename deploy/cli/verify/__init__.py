"""`wattscale verify`: facts gathered by thin readers, judged by pure functions, printed as one table."""
