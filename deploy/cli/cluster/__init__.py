"""Commands for whoever installs: streams, configuration."""
