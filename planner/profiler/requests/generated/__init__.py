"""What is written for a request once its engines are known: deployments, settings, ConfigMaps. Pure."""
