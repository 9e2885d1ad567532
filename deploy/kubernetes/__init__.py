"""A cluster for evaluation, `deploy/kubernetes/try`: made with kind or minikube, and removed again.

It touches only the cluster that it made: every kubectl and helm gets a kubeconfig of its own. No secret becomes an
argument. Runs in a checkout, from which it builds the images.
"""
