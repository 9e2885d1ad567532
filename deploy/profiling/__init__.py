"""`wattscale profile` put together: the node's GPUs, the engines, the run, its files."""
