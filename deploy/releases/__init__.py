"""Everything of a release in one folder: `deploy/release`. Runs in a checkout, with the environment of its tests."""
