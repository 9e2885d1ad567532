"""The simulated serving cluster: engines, queues, GPUs and the frontend, in virtual time."""
