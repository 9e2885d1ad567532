"""Workers as processes of one machine, without Kubernetes.

The connector keeps a record of what it started in its state folder, so a new one adopts what still runs; it never ends
a process that it did not start.
"""
