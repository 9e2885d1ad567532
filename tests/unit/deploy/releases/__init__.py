"""The parts of `deploy/release` that need no build."""
