"""The decision core. Pure: no clock, no loop, no chance, no client library; time is an argument."""
