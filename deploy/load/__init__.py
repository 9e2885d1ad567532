"""Load against any endpoint that speaks OpenAI's interface: requests are sent by a schedule, not by the answers."""
