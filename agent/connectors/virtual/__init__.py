"""The virtual connector: passes decisions on to clients of Dynamo's VirtualConnector, through etcd."""
