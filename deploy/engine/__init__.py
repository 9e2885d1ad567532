"""A small HTTP engine of our own: OpenAI's interface, vLLM's metrics, true times, no model.

It stands where a real engine would, in tests, in the demo and for the connector of local workers: it queues, batches,
fills a KV cache, slows down under a power cap, drains and ends as an engine does. Only its words mean nothing.
"""
