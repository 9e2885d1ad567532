"""KEDA and HPA as hands: they ask here for the replicas that are wanted, and write them themselves."""
