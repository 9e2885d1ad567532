"""Carries requests out in a Kubernetes cluster: watches our own kind, profiles by Jobs, makes what is generated.

Law: everything is read from the cluster at each step, and nothing is kept in memory that a restart would miss.
"""
