"""Composition: the `wattscale` command and the embedded one-machine deployment. Only here rooms meet."""
