"""`wattscale verify` against real running sites."""
