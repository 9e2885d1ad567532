"""The kubelet's pod-resources API: one gRPC call over a local socket, and its answer decoded."""
