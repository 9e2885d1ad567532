"""NVIDIA GPUs through NVML: the driver, one opened session, and what they read and write."""
