"""The agent's small Kubernetes client: access, requests, list-watch, pods, events."""
