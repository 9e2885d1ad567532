"""The Kubernetes connector: carries decisions out through ``/scale``, and acknowledges what graph and pods show."""
