"""What happened in a period: figures, budget orders, gaps and evidence, from the messages of the bus."""
