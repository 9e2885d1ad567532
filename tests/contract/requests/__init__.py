"""`wattscale request watch` beside an API server: states, events and objects as promised."""
