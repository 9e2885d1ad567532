"""The decision core. Pure: no clock, no event loop, no randomness, no client library; time is an argument."""
