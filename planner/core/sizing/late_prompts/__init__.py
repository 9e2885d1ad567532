"""The share of prompts that will be late before capacity can change: for one deployment, and for many at once. Pure."""
