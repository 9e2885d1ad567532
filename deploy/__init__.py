"""Composition: the `wattscale` command and the embedded one-machine deployment. The only place where rooms meet."""
