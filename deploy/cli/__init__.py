"""`wattscale`: the one command. Modules register sub-commands; heavy imports happen only when one runs."""
