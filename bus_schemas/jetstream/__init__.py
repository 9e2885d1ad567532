"""The contract on a NATS server: connections, streams and consumers, fenced publishing, consuming, reading, leading."""
