"""Commands for whoever builds and measures: simulation, replay, the proof."""
