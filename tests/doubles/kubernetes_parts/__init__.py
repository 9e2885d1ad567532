"""Parts of the Kubernetes double that need no server: what is served, who may do what, who owns which field."""
