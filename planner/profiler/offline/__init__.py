"""A profile without a GPU: an engine's times from published measurements of its kernels."""
