"""Pure judgements of `wattscale verify`."""
