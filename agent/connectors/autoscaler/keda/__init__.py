"""KEDA's external scaler over gRPC. Needs the extra `keda`; nothing else imports it before it is switched on."""
