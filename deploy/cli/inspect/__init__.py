"""Commands that read a running bus and change nothing."""
