"""Configuration: settings from file, environment and flags, and what is built from them."""
