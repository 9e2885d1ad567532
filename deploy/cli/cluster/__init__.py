"""Commands for installation: streams, configuration."""
