"""`wattscale`: the one command. Each module registers its sub-commands; heavy imports wait until one runs."""
