"""Commands for developers: simulation, replay, the proof."""
