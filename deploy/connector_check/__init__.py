"""`wattscale connector check`: judges whether an actuator keeps the contract of scaling acknowledgements."""
